// The engine of the commands in compute type float.

#include "finetune_impl.hpp"
#include "inspect_router_impl.hpp"
#include "score_impl.hpp"

namespace perft::cli {

PERFT_CLI_ENGINE(template, float)

}  // namespace perft::cli

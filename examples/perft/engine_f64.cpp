// The engine's commands in compute type double.

#include "finetune_impl.hpp"
#include "inspect_router.hpp"
#include "score_impl.hpp"

namespace perft::cli {

template int score_with<double>(const ScoreOptions&);

template int finetune_with<double>(const FinetuneOptions&);

template RouterLoad router_load<double>(const InspectOptions&);

}  // namespace perft::cli

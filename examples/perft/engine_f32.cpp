// The engine's commands in compute type float.

#include "finetune_impl.hpp"
#include "inspect_router.hpp"
#include "score_impl.hpp"

namespace perft::cli {

template int score_with<float>(const ScoreOptions&);

template int finetune_with<float>(const FinetuneOptions&);

template RouterLoad router_load<float>(const InspectOptions&);

}  // namespace perft::cli

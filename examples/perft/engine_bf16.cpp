// The engine's commands in compute type bf16.

#include "finetune_impl.hpp"
#include "inspect_router.hpp"
#include "score_impl.hpp"

namespace perft::cli {

template int score_with<bf16>(const ScoreOptions&);

template int finetune_with<bf16>(const FinetuneOptions&);

template RouterLoad router_load<bf16>(const InspectOptions&);

}  // namespace perft::cli

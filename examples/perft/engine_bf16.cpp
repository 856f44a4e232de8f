// The engine's commands in compute type bf16.

#include "score_impl.hpp"

namespace perft::cli {

template int score_with<bf16>(const ScoreOptions&);

}  // namespace perft::cli

// The engine's commands in compute type float.

#include "score_impl.hpp"

namespace perft::cli {

template int score_with<float>(const ScoreOptions&);

}  // namespace perft::cli

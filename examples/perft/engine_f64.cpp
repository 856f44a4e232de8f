// The engine's commands in compute type double.

#include "score_impl.hpp"

namespace perft::cli {

template int score_with<double>(const ScoreOptions&);

}  // namespace perft::cli

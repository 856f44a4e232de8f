#pragma once
// The cells of a sweep: which runs of `perft finetune` a grid file stands for.

#include <map>      // an option's value by name
#include <string>   // names
#include <utility>  // pairs
#include <vector>   // cells

#include "options.hpp"
#include "perft/train/run_config.hpp"

namespace perft::cli {

struct SweepCell {
  std::string name;                           // its folder's: "perft-r_experts-4_rank-8"
  RunConfig options;                          // all that is given, --out included
  std::map<std::string, std::string> varied;  // value by option, of those that the grid varies
};

struct SweepGrid {
  std::vector<std::string> keys;  // options that differ between cells, in the order of finetune's help text
  std::vector<SweepCell> cells;   // in the order of the file, the last key of a grid fastest
  std::vector<std::pair<std::string, std::string>> left_out;  // name and why finetune refuses it
  RunConfig shared;                                           // options that all cells have
};

/// Reads `options.grid`: a table `options` of settings that all cells have, and one or several tables `grid`, each of
/// which stands for every combination of its lists. A combination that finetune's own rules refuse (--top-k above
/// --experts, an option that the method does not have) is left out with the reason, and so is one that repeats another.
/// Throws IoError naming file and key for an unknown option, a value of the wrong type or range, or one that the sweep
/// sets itself, and if no cell is left.
SweepGrid read_grid(const SweepOptions& options);

}  // namespace perft::cli

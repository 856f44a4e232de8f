#pragma once
// Expert load of a base model on a text: which share of the choices each expert of each layer gets.

#include <algorithm>  // std::min_element
#include <cmath>      // std::log
#include <cstdint>    // counts
#include <vector>     // layers

#include "options.hpp"
#include "perft/data/encode.hpp"

namespace perft::cli {

/// Load of one layer's experts. A share is the part of all choices (tokens · K); the shares of a layer sum to 1.
struct LayerLoad {
  std::vector<double> shares;
  double aux = 0;  // the load-balancing loss of this layer alone; K when uniform

  double least() const { return *std::min_element(shares.begin(), shares.end()); }

  double most() const { return *std::max_element(shares.begin(), shares.end()); }

  /// −Σ s ln s / ln N: 1 when uniform, 0 when one expert gets everything. 1 for a single expert.
  double entropy() const {
    double sum = 0;
    for (const double share : shares) {
      sum -= share > 0 ? share * std::log(share) : 0;
    }
    return shares.size() == 1 ? 1 : sum / std::log(static_cast<double>(shares.size()));
  }

  std::int64_t dead() const { return std::count(shares.begin(), shares.end(), 0.0); }
};

struct RouterLoad {
  std::vector<LayerLoad> layers;
  double aux = 0;  // over all layers pooled, as in training
  EncodeStats text;
};

/// Runs the base model of `options.dir` over the rows of `options.data` (prompt alpaca, EOS appended, cut only at
/// max_position_embeddings). Throws IoError for the folder, its tokenizer and the data, NonFiniteError naming the first
/// layer whose output is not finite.
RouterLoad run_router(const InspectOptions& options);

}  // namespace perft::cli

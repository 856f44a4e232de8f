#pragma once
// Expert load of a base model on a text: which share of the choices each expert of each layer gets.

#include <vector>  // layers

#include "options.hpp"
#include "perft/data/encode.hpp"
#include "perft/train/router_use.hpp"

namespace perft::cli {

struct LayerLoad {
  ExpertLoad experts;
  double aux = 0;  // the load-balancing loss of this layer alone; K when uniform
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

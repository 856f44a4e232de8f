#pragma once
// What fine-tuning needs before a model is loaded: encoded rows, their split, and what is said about them.

#include <cstdint>  // ids
#include <string>   // tables
#include <vector>   // rows

#include "finetune_session.hpp"
#include "options.hpp"
#include "perft/data/encode.hpp"
#include "perft/models/config.hpp"
#include "perft/train/memory_plan.hpp"

namespace perft::cli {

struct FinetuneData {
  std::vector<EncodedRow> train;
  std::vector<EncodedRow> validation;
  EncodeStats stats;  // of all rows
};

/// Reads, encodes and splits the rows of options.data with the model folder's tokenizer. Throws Error naming file and
/// row; also if either part of the split has nothing to learn or to measure.
FinetuneData load_data(const FinetuneOptions& options, const ModelConfig& config);

/// Rows of a micro-batch, what is recomputed, and the planned peak of activations beside the budget (bytes).
std::string plan_table(const MicroBatchPlan& plan, const FinetuneOptions& options, std::int64_t budget);

/// One line per fact: rows, tokens, truncated, share of trained tokens, rows without EOS, …
std::string data_table(const FinetuneData& data, const FinetuneOptions& options);

/// Role, layers, tensors, parameters and their share of the base's. Throws ValueError if nothing is trained.
std::string trained_table(const std::vector<TrainedTensor>& tensors, std::int64_t base_parameters);

}  // namespace perft::cli

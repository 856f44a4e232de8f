#pragma once
// What fine-tuning needs before a model is loaded: encoded rows, their split, and what is said about them.

#include <cstdint>  // ids
#include <string>   // tables
#include <utility>  // pairs
#include <vector>   // rows

#include "finetune_session.hpp"
#include "options.hpp"
#include "perft/data/duplicates.hpp"
#include "perft/data/encode.hpp"
#include "perft/data/order.hpp"
#include "perft/io/json.hpp"
#include "perft/models/config.hpp"
#include "perft/train/memory_plan.hpp"

namespace perft::cli {

struct FinetuneData {
  std::vector<EncodedRow> train;
  std::vector<EncodedRow> validation;
  EncodeStats stats;                                        // of all rows
  std::vector<std::pair<std::string, std::int64_t>> files;  // each with its number of rows
  Duplicates duplicates;
};

/// What rows are encoded with, apart from the prompt. Throws IoError if the model folder names no EOS.
EncodeOptions encode_options(const FinetuneOptions& options, const ModelConfig& config);

/// The split of `rows` rows. Throws IoError if --val-size leaves none to train.
RowSplit split_for(const FinetuneOptions& options, std::int64_t rows);

/// Reads, encodes and splits the rows of options.data with the model folder's tokenizer. Throws Error naming file and
/// row; also if either part of the split has nothing to learn or to measure.
FinetuneData load_data(const FinetuneOptions& options, const ModelConfig& config);

/// Rows of a micro-batch, what is recomputed, and the planned peak of activations beside the budget (bytes).
std::string plan_table(const MicroBatchPlan& plan, const FinetuneOptions& options, std::int64_t budget);

/// One line per fact: rows, of which file, tokens, truncated, share of trained tokens, rows without EOS, seams,
/// duplicates. What is seldom other than 0 has a line only where it is.
std::string rows_table(const FinetuneData& data, const FinetuneOptions& options);

/// The same facts, all of them.
OrderedJson rows_json(const FinetuneData& data);

/// rows_table, and what padding means for the loss of the run.
std::string data_table(const FinetuneData& data, const FinetuneOptions& options);

/// Role, layers, tensors, parameters and their share of the base's. Throws ValueError if nothing is trained.
std::string trained_table(const std::vector<TrainedTensor>& tensors, std::int64_t base_parameters);

}  // namespace perft::cli

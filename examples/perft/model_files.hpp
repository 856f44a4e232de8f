#pragma once
// A model folder, opened and checked, and the rows of data files as its tokenizer encodes them.

#include <cstdint>  // ids
#include <memory>   // reading ahead
#include <string>   // folders
#include <vector>   // rows

#include "perft/core/batch.hpp"
#include "perft/data/encode.hpp"
#include "perft/data/rows.hpp"
#include "perft/io/prefetch.hpp"
#include "perft/models/config.hpp"
#include "perft/models/tensor_table.hpp"
#include "perft/peft/adapter_config.hpp"

namespace perft::cli {

struct ModelFiles {
  std::string dir;
  std::string config_path;
  ModelConfig config;
  CheckpointTensors tensors;

  /// Throws as HubFolder::open, ModelConfig::parse and CheckpointTensors::open do.
  static ModelFiles open(const std::string& dir);
};

/// Starts reading the weights ahead of their first use, where free memory has room for all of them; else nothing.
std::unique_ptr<Prefetch> prefetch(const CheckpointTensors& tensors);

/// Bytes of the files that hold `tensors`.
std::int64_t checkpoint_bytes(const CheckpointTensors& tensors);

/// Numbers in all of `tensors`.
std::int64_t parameter_count(const CheckpointTensors& tensors);

/// config.json alone: what texts need of a model. Throws as ModelConfig::parse does, or if there is no such file.
ModelConfig read_model_config(const std::string& dir);

/// What adapter_config.json says of its base.
BaseFacts base_facts(const ModelConfig& config);

/// The id that ends a row: the first of generation_config.json's eos_token_id, else of config.json's; −1 if there is
/// none. Throws IoError if it is outside the vocabulary.
std::int32_t end_of_row(const std::string& model, const ModelConfig& config);

/// The rows of a file under a prompt, encoded by the tokenizer of the folder `model`. `file` is what errors name where
/// no row is at fault. Throws Error naming file and row, and IoError for an id that the model has no embedding for:
/// another model's tokenizer.
std::vector<EncodedRow> encode_for(const std::string& model, const ModelConfig& config, const std::vector<Row>& rows,
                                   const std::string& file, const std::string& prompt, const EncodeOptions& options,
                                   EncodeStats& stats);

}  // namespace perft::cli

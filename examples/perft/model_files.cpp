// Opening model folders and encoding rows, compiled once for all commands.

#include "model_files.hpp"

#include <algorithm>  // std::find

#include "memory_use.hpp"
#include "perft/data/prompt.hpp"
#include "perft/io/hub_folder.hpp"
#include "perft/io/mapped_file.hpp"  // read_text_file
#include "perft/text/tokenizer.hpp"

namespace perft::cli {

ModelFiles ModelFiles::open(const std::string& dir) {
  const HubFolder hub = HubFolder::open(dir);
  const ModelConfig config = ModelConfig::parse(hub.config_json(), hub.config_path());
  return {dir, hub.config_path(), config, CheckpointTensors::open(hub, config)};
}

namespace {

std::vector<std::shared_ptr<const MappedFile>> files_of(const CheckpointTensors& tensors) {
  std::vector<std::shared_ptr<const MappedFile>> files;
  for (const TensorEntry& entry : tensors.entries()) {
    if (std::find(files.begin(), files.end(), entry.file) == files.end()) {
      files.push_back(entry.file);
    }
  }
  return files;
}

}  // namespace

std::int64_t checkpoint_bytes(const CheckpointTensors& tensors) {
  std::int64_t total = 0;
  for (const auto& file : files_of(tensors)) {
    total += static_cast<std::int64_t>(file->size());
  }
  return total;
}

std::int64_t parameter_count(const CheckpointTensors& tensors) {
  std::int64_t total = 0;
  for (const TensorEntry& entry : tensors.entries()) {
    total += entry.elements();
  }
  return total;
}

std::unique_ptr<Prefetch> prefetch(const CheckpointTensors& tensors) {
  return checkpoint_bytes(tensors) <= free_memory() ? std::make_unique<Prefetch>(files_of(tensors)) : nullptr;
}

ModelConfig read_model_config(const std::string& dir) {
  const std::string path = dir + "/config.json";
  return ModelConfig::parse(parse_json_strict(read_text_file(path), path), path);
}

BaseFacts base_facts(const ModelConfig& config) {
  return {std::string(family_name(config.family)), config.hidden_size, config.num_hidden_layers, config.vocab_size,
          config.num_experts};
}

std::int32_t end_of_row(const std::string& model, const ModelConfig& config) {
  const std::vector<std::int64_t> ids = generation_eos_ids(model).value_or(config.eos_token_ids);
  if (ids.empty()) {
    return -1;
  }
  check<IoError>(ids.front() >= 0 && ids.front() < config.vocab_size, model, ": eos_token_id is ", ids.front(),
                 ", expected an id in [0, ", config.vocab_size, "), the model's vocabulary; correct ",
                 "generation_config.json or config.json");
  return static_cast<std::int32_t>(ids.front());
}

std::vector<EncodedRow> encode_for(const std::string& model, const ModelConfig& config, const std::vector<Row>& rows,
                                   const std::string& file, const std::string& prompt, const EncodeOptions& options,
                                   EncodeStats& stats) {
  const PromptTemplate form = load_prompt_template(prompt);
  const std::string tokenizer_path = model + "/tokenizer.json";
  const Tokenizer tokenizer = Tokenizer::load(tokenizer_path);
  std::vector<EncodedRow> encoded;
  try {
    encoded = encode_rows(tokenizer, form, rows, options, stats);
  } catch (const ValueError& error) {
    fail<IoError>(file, ": ", error.what());
  }
  for (const EncodedRow& row : encoded) {
    for (const std::int32_t id : row.ids) {
      check<IoError>(id >= 0 && id < config.vocab_size, tokenizer_path, ": gives id ", id,
                     ", expected ids below the model's vocab_size ", config.vocab_size,
                     "; use the tokenizer of this model");
    }
  }
  return encoded;
}

}  // namespace perft::cli

// `perft score`: what does not depend on the compute type.

#include "score.hpp"

#include <cmath>     // std::isfinite
#include <iostream>  // results
#include <utility>   // std::move

#include "engine.hpp"
#include "engine_commands.hpp"
#include "perft/io/safetensors.hpp"

namespace perft::cli {

namespace {

/// An integer tensor of a batch file.
struct Integers {
  std::vector<std::int64_t> values, shape;

  IntegerTensor view() const { return {values, shape}; }
};

std::optional<Integers> read_integers(const SafetensorsFile& file, const std::string& path, const char* name,
                                      bool required) {
  const TensorEntry* entry = file.find(name);
  check<IoError>(entry != nullptr || !required, path, ": tensor '", name, "' is missing, expected I64 [rows, columns]");
  if (entry == nullptr) {
    return std::nullopt;
  }
  check<IoError>(entry->dtype == DType::i64, path, ": tensor '", name, "' is ", dtype_name(entry->dtype),
                 ", expected I64");
  return Integers{read_as<std::int64_t>(*entry), entry->shape};
}

ScoreInput read_input(const ScoreOptions& options) {
  const std::string& path = options.input;
  const SafetensorsFile file = SafetensorsFile::open(path);
  const Integers ids = *read_integers(file, path, "input_ids", true);
  const Integers mask = *read_integers(file, path, "attention_mask", true);
  const std::optional<Integers> labels = read_integers(file, path, "labels", false);
  ScoreInput input{ModelFiles::open(options.model), {}, 0, {}};
  const ModelConfig& config = input.model.config;
  input.padded = from_padded(path, ids.view(), mask.view(), labels ? std::optional(labels->view()) : std::nullopt,
                             config.vocab_size, options.pad_rows);
  input.rows = ids.shape[0];
  if (input.padded.columns > config.max_position_embeddings) {
    note(path + ": rows of " + std::to_string(input.padded.columns) + " tokens are longer than the model's " +
         std::to_string(config.max_position_embeddings));
  }
  check<IoError>(labels || !(options.grads || options.steps > 0), path,
                 ": tensor 'labels' is missing; gradients need it");
  if (!options.adapter.empty()) {
    input.adapter = read_adapter_config(options.adapter, base_facts(config));
    for (const std::string& text : input.adapter->notes) {
      note(text);
    }
  }
  return input;
}

}  // namespace

ScoreOutput::ScoreOutput(const std::string& path, std::vector<TensorHeader> tensors)
    : tensors_(std::move(tensors)), writer_(path, tensors_) {}

bool ScoreOutput::write(const float* values, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    if (!std::isfinite(values[i])) {
      return false;
    }
  }
  if (left_ == 0) {
    left_ = *tensor_bytes(tensors_[at_].shape, DType::f32) / std::int64_t{sizeof(float)};
  }
  writer_.write(values, n * sizeof(float));
  left_ -= static_cast<std::int64_t>(n);
  at_ += left_ == 0 ? 1 : 0;
  return true;
}

int run_score(const ScoreOptions& options) {
  apply_threads(options);
  const ScoreInput input = read_input(options);
  const std::optional<double> lm =
      with_compute_type(options, [&]<ComputeType C>() { return score_with<C>(options, input); });
  const std::size_t targets = input.padded.batch.targets.size();
  if (options.json) {
    OrderedJson json = {{"rows", input.rows}, {"columns", input.padded.columns}};
    if (lm) {
      json["targets"] = targets;
      json["lm_loss"] = *lm;
    }
    std::cout << json.dump() << "\n";
  } else if (lm) {
    std::cout << "lm_loss " << *lm << " over " << targets << " targets\n";
  }
  return 0;
}

}  // namespace perft::cli

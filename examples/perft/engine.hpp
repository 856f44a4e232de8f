#pragma once
// What the commands that run a model share; instantiated once per compute type (engine_<type>.cpp).

#include <cstdint>  // ids
#include <memory>   // models
#include <string>   // folders
#include <vector>   // rows

#include "options.hpp"
#include "perft/data/batch.hpp"
#include "perft/models/load_model.hpp"
#include "perft/peft/adapter_io.hpp"

namespace perft::cli {

/// The compute type of a run: as asked, else bf16 where the machine multiplies it natively, else f32.
Compute resolve_compute(const CommonOptions& options);

/// Applies --threads.
void apply_threads(const CommonOptions& options);

/// A note for a person: stderr, only if it is a terminal.
void note(const std::string& text);

/// What adapter_config.json says of its base.
inline BaseFacts base_facts(const ModelConfig& config) {
  return {std::string(family_name(config.family)), config.hidden_size, config.num_hidden_layers, config.vocab_size,
          config.num_experts};
}

/// Throws IoError if a row holds an id that the model has no embedding for: another model's tokenizer.
inline void check_ids(const std::vector<EncodedRow>& rows, std::int64_t vocabulary, const std::string& model) {
  for (const EncodedRow& row : rows) {
    for (const std::int32_t id : row.ids) {
      check<IoError>(id >= 0 && id < vocabulary, model, "/tokenizer.json: gives id ", id,
                     ", expected ids below the model's vocab_size ", vocabulary, "; use the tokenizer of this model");
    }
  }
}

template <ComputeType C>
int score_with(const ScoreOptions& options);

template <ComputeType C>
int finetune_with(const FinetuneOptions& options);

extern template int finetune_with<bf16>(const FinetuneOptions&);
extern template int finetune_with<float>(const FinetuneOptions&);
extern template int finetune_with<double>(const FinetuneOptions&);
extern template int score_with<bf16>(const ScoreOptions&);
extern template int score_with<float>(const ScoreOptions&);
extern template int score_with<double>(const ScoreOptions&);

}  // namespace perft::cli

#pragma once
// An OLMoE checkpoint with random weights in the layout of the hub: what make_checkpoint leaves and pretrain starts
// from.

#include <cstdint>     // sizes
#include <filesystem>  // the folder
#include <string>      // names
#include <vector>      // tensors

#include "named_options.hpp"
#include "perft/core/rng.hpp"
#include "perft/io/atomic_file.hpp"
#include "perft/io/safetensors_writer.hpp"
#include "perft/models/tensor_table.hpp"

namespace perft::examples {

/// The sizes that config.json says; heads are of equal number for queries and keys.
struct CheckpointSizes {
  std::int64_t hidden = 256;
  std::int64_t layers = 4;
  std::int64_t heads = 8;
  std::int64_t experts = 16;
  std::int64_t top_k = 4;
  std::int64_t inner = 128;
  std::int64_t context = 4096;
  std::int64_t vocab = 50304;
  std::int64_t eos = 50279;
  std::int64_t pad = 1;
  bool tied = false;
};

/// The sizes that both programs' options give; the others keep their defaults.
inline CheckpointSizes sizes_from(const NamedOptions& options) {
  CheckpointSizes sizes;
  sizes.hidden = options.number("--hidden");
  sizes.layers = options.number("--layers");
  sizes.heads = options.number("--heads");
  sizes.experts = options.number("--experts");
  sizes.top_k = options.number("--top-k");
  sizes.inner = options.number("--inner");
  sizes.context = options.number("--context");
  return sizes;
}

/// What OLMoE-1B-7B-0924's config.json says, with other sizes. The defaults of vocabulary and special ids are its
/// tokenizer's.
inline OrderedJson olmoe_config_json(const CheckpointSizes& n) {
  return {{"architectures", {"OlmoeForCausalLM"}},
          {"attention_bias", false},
          {"attention_dropout", 0.0},
          {"clip_qkv", nullptr},
          {"eos_token_id", n.eos},
          {"hidden_act", "silu"},
          {"hidden_size", n.hidden},
          {"initializer_range", 0.02},
          {"intermediate_size", n.inner},
          {"max_position_embeddings", n.context},
          {"model_type", "olmoe"},
          {"norm_topk_prob", false},
          {"num_attention_heads", n.heads},
          {"num_experts", n.experts},
          {"num_experts_per_tok", n.top_k},
          {"num_hidden_layers", n.layers},
          {"num_key_value_heads", n.heads},
          {"output_router_logits", false},
          {"pad_token_id", n.pad},
          {"rms_norm_eps", 1e-05},
          {"rope_scaling", nullptr},
          {"rope_theta", 10000.0},
          {"router_aux_loss_coef", 0.01},
          {"tie_word_embeddings", n.tied},
          {"torch_dtype", "bfloat16"},
          {"vocab_size", n.vocab}};
}

/// Norms are one, everything else is N(0, deviation²). A tensor has a random stream of its own, so its values depend on
/// (seed, index, shape) alone.
inline std::vector<bf16> random_values(const TensorSpec& spec, std::uint64_t seed, std::uint64_t index,
                                       double deviation) {
  std::size_t count = 1;
  for (const std::int64_t extent : spec.shape) {
    count *= static_cast<std::size_t>(extent);
  }
  std::vector<bf16> values(count, bf16(1.0F));
  if (spec.shape.size() == 2) {
    PhiloxStream stream(seed, index);
    for (bf16& value : values) {
      value = bf16(deviation * stream.normal());
    }
  }
  return values;
}

/// Makes the folder `out` and writes model.safetensors, tokenizer.json (the text `tokenizer`), generation_config.json
/// and, last, config.json. `config` is `json` parsed. Returns the number of parameters. Throws IoError.
inline std::size_t write_random_checkpoint(const std::string& out, const OrderedJson& json, const ModelConfig& config,
                                           const std::string& tokenizer, std::uint64_t seed) {
  std::filesystem::create_directories(out);
  const std::vector<TensorSpec> specs = expected_tensors(config);
  std::vector<TensorHeader> headers;
  for (const TensorSpec& spec : specs) {
    headers.push_back({spec.name, DType::bf16, spec.shape});
  }
  SafetensorsWriter weights(out + "/model.safetensors", headers, {{"format", "pt"}});
  std::size_t parameters = 0;
  for (std::size_t i = 0; i < specs.size(); ++i) {
    const std::vector<bf16> values = random_values(specs[i], seed, i, config.initializer_range);
    weights.write(values.data(), values.size() * sizeof(bf16));
    parameters += values.size();
  }
  weights.commit();
  write_text_atomically(out + "/tokenizer.json", tokenizer);
  const OrderedJson generation = {{"eos_token_id", json.at("eos_token_id")}, {"pad_token_id", json.at("pad_token_id")}};
  write_text_atomically(out + "/generation_config.json", generation.dump(2) + "\n");
  write_text_atomically(out + "/config.json", json.dump(2) + "\n");
  return parameters;
}

}  // namespace perft::examples

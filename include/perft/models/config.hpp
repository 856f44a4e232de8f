#pragma once
// What a base model is: the numbers of config.json (OLMoE, Mixtral), in both of transformers' spellings, checked.

#include <cstdint>      // std::int64_t
#include <filesystem>   // generation_config.json is optional
#include <optional>     // options that may be unset
#include <string>       // names
#include <string_view>  // names
#include <utility>      // std::move
#include <vector>       // eos ids

#include "perft/core/error.hpp"
#include "perft/io/json.hpp"
#include "perft/io/json_fields.hpp"
#include "perft/io/mapped_file.hpp"  // read_text_file

namespace perft::inline PERFT_ABI {

enum class Family { olmoe, mixtral };

/// config.json's model_type.
constexpr std::string_view family_name(Family family) {
  return family == Family::olmoe ? "olmoe" : "mixtral";
}

/// Absent keys have the defaults of transformers' OlmoeConfig and MixtralConfig (5.23); keys of sizes are required.
/// Letters: docs/notation.md.
struct ModelConfig {
  Family family = Family::olmoe;
  std::int64_t hidden_size = 0;              // D
  std::int64_t num_hidden_layers = 0;        // L
  std::int64_t num_attention_heads = 0;      // H
  std::int64_t num_key_value_heads = 0;      // H_kv; null means H, absent in a Mixtral file 8
  std::int64_t head_dim = 0;                 // d; explicit or D / H, even
  std::int64_t intermediate_size = 0;        // F, of one expert
  std::int64_t num_experts = 0;              // N; num_local_experts in a Mixtral file
  std::int64_t num_experts_per_tok = 0;      // K
  std::int64_t vocab_size = 0;               // V
  std::int64_t max_position_embeddings = 0;  // longer rows run; a note only
  double rope_theta = 0;                     // default 1e4 OLMoE, 1e6 Mixtral
  double rms_norm_eps = 1e-5;
  bool norm_topk_prob = false;                 // renormalise the top-k weights; always in Mixtral
  std::optional<double> clip_qkv;              // OLMoE only
  std::optional<std::int64_t> sliding_window;  // Mixtral only
  double router_aux_loss_coef = 0;             // default 0.01 OLMoE, 0.001 Mixtral
  double router_jitter_noise = 0;              // Mixtral only, training only
  double initializer_range = 0.02;
  bool tie_word_embeddings = false;
  std::optional<std::int64_t> pad_token_id;  // default 1 OLMoE, unset Mixtral
  std::optional<std::int64_t> bos_token_id;  // default unset OLMoE, 1 Mixtral
  std::vector<std::int64_t> eos_token_ids;   // default 50279 OLMoE, 2 Mixtral; null: none
  std::optional<std::string> torch_dtype;    // dtype or torch_dtype

  /// Reads config.json at `path` (the file itself). Throws as parse does, and IoError if it cannot be read.
  static ModelConfig load(const std::string& path) {
    return parse(parse_json_strict(read_text_file(path), path), path);
  }

  /// `where` is the file as opened. Throws IoError naming the key for a missing key, a wrong type or a value that makes
  /// no sense; UnsupportedError for what perft does not compute (another model_type, a scaled RoPE, attention bias,
  /// another activation, quantised weights).
  static ModelConfig parse(const Json& json, const std::string& where);
};

namespace detail {

/// One-line refusal of something transformers has and perft does not.
template <class... Pieces>
void supported(bool condition, const JsonFields& fields, std::string_view key, const Pieces&... pieces) {
  check<UnsupportedError>(condition, fields.where(), ": ", key, " ", pieces...);
}

/// Both spellings: rope_theta and rope_scaling (4.x), rope_parameters (5.x). theta: the nested value wins, as in
/// transformers' standardize_rope_params.
inline double read_rope_theta(const JsonFields& fields, double otherwise) {
  double theta = fields.positive_if("rope_theta").value_or(otherwise);
  const auto partial = [](const JsonFields& from) {
    const double factor = from.number_if("partial_rotary_factor", 0.0, 1.0).value_or(1.0);
    supported(factor == 1.0, from, "partial_rotary_factor", "is ", factor,
              ", only 1 (the whole head) is supported; use another checkpoint");
  };
  partial(fields);
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    const Json* value = fields.find(key);
    if (value == nullptr) {
      continue;
    }
    if (!value->is_object()) {
      fields.reject(key, "is ", JsonFields::shown(*value), ", expected an object or null; correct the file");
    }
    if (value->empty()) {
      continue;
    }
    const JsonFields rope(*value, fields.where() + ": " + key);
    const std::string type = rope.string_if("rope_type").value_or(rope.string_if("type").value_or("default"));
    supported(type == "default", fields, key, "has type ", in_quotes(type),
              ", only unscaled RoPE (null or \"default\") is supported; use another checkpoint");
    partial(rope);
    theta = rope.positive_if("rope_theta").value_or(theta);
  }
  return theta;
}

/// Refuses what would make the model compute something else than perft does.
inline void check_supported(const JsonFields& fields) {
  supported(fields.string_if("hidden_act").value_or("silu") == "silu", fields, "hidden_act", "is ",
            in_quotes(fields.string_if("hidden_act").value_or("")),
            ", only \"silu\" is supported; use another checkpoint");
  supported(!fields.boolean_if("attention_bias").value_or(false), fields, "attention_bias",
            "is true, only false is supported; use another checkpoint");
  supported(fields.number_if("attention_dropout", 0.0, 1.0).value_or(0.0) == 0.0, fields, "attention_dropout",
            "is not 0, only 0 is supported; set it to 0 if you accept training without it");
  supported(fields.find("quantization_config") == nullptr, fields, "quantization_config",
            "is set, only F32, BF16 and F16 weights are supported; use the unquantised checkpoint");
}

/// The relations between sizes.
inline void check_sizes(const ModelConfig& c, const JsonFields& fields) {
  if (c.num_attention_heads % c.num_key_value_heads != 0) {
    fields.reject("num_key_value_heads", "is ", c.num_key_value_heads, ", expected a divisor of num_attention_heads (",
                  c.num_attention_heads, "); correct the file");
  }
  if (c.head_dim % 2 != 0) {  // rotate-half pairs entry i with i + d/2
    fields.reject("head_dim", "is ", c.head_dim, fields.find("head_dim") == nullptr ? " (hidden_size / heads)" : "",
                  ", expected an even number; correct the file");
  }
  constexpr std::int64_t most_experts = 1'000'000;  // in all layers; the largest public model has 25 thousand
  if (c.num_experts * c.num_hidden_layers > most_experts) {
    fields.reject("num_hidden_layers", "is ", c.num_hidden_layers, " with ", c.num_experts,
                  " experts each, expected at most ", most_experts, " experts in all; correct the file");
  }
  if (c.pad_token_id && *c.pad_token_id >= c.vocab_size) {
    fields.reject("pad_token_id", "is ", *c.pad_token_id, ", expected an id below vocab_size (", c.vocab_size,
                  "); correct the file");
  }
}

}  // namespace detail

inline ModelConfig ModelConfig::parse(const Json& json, const std::string& where) {
  const JsonFields fields(json, where);
  ModelConfig c;
  const std::string type = fields.string("model_type");
  detail::supported(type == "olmoe" || type == "mixtral", fields, "model_type", "is ", in_quotes(type),
                    ", only \"olmoe\" and \"mixtral\" are supported; use another checkpoint");
  const bool olmoe = type == "olmoe";
  c.family = olmoe ? Family::olmoe : Family::mixtral;
  detail::check_supported(fields);

  constexpr std::int64_t most = std::int64_t{1} << 28U;  // 128 times the widest public vocabulary; products fit 63 bits
  c.hidden_size = fields.integer("hidden_size", 1, most);
  c.num_hidden_layers = fields.integer("num_hidden_layers", 1, most);
  c.num_attention_heads = fields.integer("num_attention_heads", 1, most);
  const bool heads_by_class = !olmoe && !fields.present("num_key_value_heads");
  c.num_key_value_heads = fields.integer_if("num_key_value_heads", 1, most)
                              .value_or(heads_by_class ? std::int64_t{8} : c.num_attention_heads);
  if (const auto head_dim = fields.integer_if("head_dim", 1, most)) {
    c.head_dim = *head_dim;
  } else {
    if (c.hidden_size % c.num_attention_heads != 0) {
      fields.reject("num_attention_heads", "is ", c.num_attention_heads, ", expected a divisor of hidden_size (",
                    c.hidden_size, ") where head_dim is not given; correct the file");
    }
    c.head_dim = c.hidden_size / c.num_attention_heads;
  }
  c.intermediate_size = fields.integer("intermediate_size", 1, most);
  // Each transformers class reads the other's spelling as an alias.
  const char* experts = olmoe ? "num_experts" : "num_local_experts";
  const char* alias = olmoe ? "num_local_experts" : "num_experts";
  c.num_experts = fields.integer(!fields.present(experts) && fields.present(alias) ? alias : experts, 1, most);
  c.num_experts_per_tok = fields.integer("num_experts_per_tok", 1, c.num_experts);
  c.vocab_size = fields.integer("vocab_size", 1, most);
  c.max_position_embeddings = fields.integer_if("max_position_embeddings", 1).value_or(olmoe ? 4096 : 4096 * 32);

  c.rope_theta = detail::read_rope_theta(fields, olmoe ? 1e4 : 1e6);
  c.rms_norm_eps = fields.positive_if("rms_norm_eps").value_or(c.rms_norm_eps);
  c.norm_topk_prob = !olmoe || fields.boolean_if("norm_topk_prob").value_or(false);
  if (olmoe) {
    c.clip_qkv = fields.positive_if("clip_qkv");
    detail::supported(fields.find("sliding_window") == nullptr, fields, "sliding_window",
                      "is set, which OLMoE does not have; set it to null");
  } else {
    c.sliding_window = fields.integer_if("sliding_window", 1);
    c.router_jitter_noise = fields.number_if("router_jitter_noise", 0.0, 1.0).value_or(0.0);
  }
  c.router_aux_loss_coef = fields.number_if("router_aux_loss_coef", 0.0).value_or(olmoe ? 0.01 : 0.001);
  c.initializer_range = fields.number_if("initializer_range", 0.0).value_or(c.initializer_range);
  c.tie_word_embeddings = fields.boolean_if("tie_word_embeddings").value_or(false);

  const auto token = [&](const char* key, std::optional<std::int64_t> otherwise) {
    return fields.present(key) ? fields.integer_if(key, 0) : otherwise;
  };
  c.pad_token_id = token("pad_token_id", olmoe ? std::optional<std::int64_t>(1) : std::nullopt);
  c.bos_token_id = token("bos_token_id", olmoe ? std::nullopt : std::optional<std::int64_t>(1));
  c.eos_token_ids = {olmoe ? 50279 : 2};
  if (fields.present("eos_token_id")) {
    c.eos_token_ids = fields.integers_if("eos_token_id", 0).value_or(std::vector<std::int64_t>{});
  }
  c.torch_dtype = fields.string_if("dtype");
  if (!c.torch_dtype) {
    c.torch_dtype = fields.string_if("torch_dtype");
  }
  detail::check_sizes(c, fields);
  return c;
}

/// generation_config.json's eos_token_id (a number or a list), nothing if the file or the key is not there. Throws
/// IoError as ModelConfig::load does.
inline std::optional<std::vector<std::int64_t>> generation_eos_ids(const std::string& dir) {
  const std::string path = (std::filesystem::path(dir) / "generation_config.json").string();
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    return std::nullopt;
  }
  const Json json = parse_json_strict(read_text_file(path), path);
  return JsonFields(json, path).integers_if("eos_token_id", 0);
}

/// The ids at which generation stops: generation_config.json's, else config.json's. Throws IoError as
/// ModelConfig::load does.
inline std::vector<std::int64_t> read_eos_ids(const std::string& dir) {
  if (auto ids = generation_eos_ids(dir)) {
    return *std::move(ids);
  }
  return ModelConfig::load((std::filesystem::path(dir) / "config.json").string()).eos_token_ids;
}

}  // namespace perft::inline PERFT_ABI

#pragma once
// Turns a checkpoint folder and a golden variant file into a reference::Problem, with no perft code in between.

#include <filesystem>  // paths
#include <fstream>     // config.json
#include <string>      // names

#include "reference/gradient.hpp"
#include "support/golden.hpp"

namespace reference {

/// config.json in either spelling (rope_theta, or rope_parameters of transformers 5).
inline RefConfig read_config(const std::filesystem::path& file) {
  std::ifstream in(file);
  const auto json = nlohmann::json::parse(in);
  const auto has = [&](const char* key) { return json.contains(key) && !json.at(key).is_null(); };
  const auto count = [&](const char* key) { return json.at(key).get<std::size_t>(); };
  RefConfig c;
  c.mixtral = json.at("model_type") == "mixtral";
  c.hidden = count("hidden_size");
  c.layers = count("num_hidden_layers");
  c.heads = count("num_attention_heads");
  c.kv_heads = count("num_key_value_heads");
  c.head_dim = has("head_dim") ? count("head_dim") : c.hidden / c.heads;
  c.experts = count(c.mixtral ? "num_local_experts" : "num_experts");
  c.top_k = count("num_experts_per_tok");
  c.intermediate = count("intermediate_size");
  c.vocab = count("vocab_size");
  c.rms_norm_eps = json.at("rms_norm_eps");
  c.rope_theta = has("rope_theta") ? json.at("rope_theta") : json.at("rope_parameters").at("rope_theta");
  c.aux_coef = json.at("router_aux_loss_coef");
  c.norm_topk = c.mixtral || json.at("norm_topk_prob").get<bool>();
  c.tie_word_embeddings = has("tie_word_embeddings") && json.at("tie_word_embeddings").get<bool>();
  if (has("clip_qkv")) c.clip_qkv = json.at("clip_qkv").get<double>();
  if (c.mixtral && has("sliding_window")) c.sliding_window = count("sliding_window");
  if (has("pad_token_id")) c.padding_idx = json.at("pad_token_id").get<std::int64_t>();
  return c;
}

/// What a golden file holds an adapter of: from its metadata (method, alpha, …) where it has them, else from its name.
inline RefAdapter describe_adapter(const support::GoldenFile& golden) {
  using Method = RefAdapter::Method;
  RefAdapter adapter;
  const std::string name = golden.metadata.at("variant");
  const auto meta = [&](const char* key) { return golden.metadata.contains(key) ? golden.metadata.at(key) : ""; };
  adapter.parallel = name.ends_with("-parallel");
  adapter.base_weights = name.ends_with("-released");
  if (name.starts_with("lora-")) adapter.method = Method::lora;
  if (name.starts_with("perft-s")) adapter.method = Method::perft_s;
  if (name.starts_with("perft-d")) adapter.method = Method::perft_d;
  if (name.starts_with("perft-r")) adapter.method = Method::perft_r;
  if (name.starts_with("perft-e")) adapter.method = Method::perft_e;
  if (adapter.method == Method::perft_r) adapter.top_k = static_cast<std::size_t>(name.at(10) - '0');  // perft-r-M-k
  for (const auto& [tensor, value] : golden.tensors) {
    if (!tensor.starts_with("param.")) continue;
    if (tensor.starts_with("param.model.layers.0.mlp.perft.experts.") &&
        (tensor.ends_with("lora_A.weight") || tensor.ends_with("w1.weight"))) {
      ++adapter.experts;
    }
    if (!meta("alpha").empty() && tensor.ends_with("lora_A.weight")) {
      adapter.scaling = std::stod(meta("alpha")) / static_cast<double>(value.shape.at(0));
    }
  }
  return adapter;
}

/// The batch with the given prefix ("" left-padded, "right.", "nopad.").
inline RefBatch golden_batch(const support::GoldenFile& golden, const std::string& prefix = "") {
  const auto& shape = golden.at(prefix + "input_ids").shape;
  return {shape.at(0), shape.at(1), golden.integers(prefix + "input_ids"), golden.integers(prefix + "attention_mask"),
          golden.integers(prefix + "labels")};
}

/// `folder` holds checkpoint/{config.json, model.safetensors} and <variant>.safetensors.
inline Problem golden_problem(const std::filesystem::path& folder, const support::GoldenFile& golden,
                              const std::string& prefix = "") {
  return {read_config(folder / "checkpoint" / "config.json"),
          support::read_golden(folder / "checkpoint" / "model.safetensors").with_prefix(""),
          describe_adapter(golden),
          golden.with_prefix("param."),
          golden_batch(golden, prefix),
          PadRows::hf};
}

}  // namespace reference

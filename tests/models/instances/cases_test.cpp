// What cases.hpp declares and is expensive to compile, once for this folder's tests: files.

#include "models/support/cases.hpp"

#include <catch2/catch.hpp>  // test cases
#include <deque>             // values that a writer points at
#include <filesystem>        // folders
#include <fstream>           // config.json

#include "perft/io/safetensors_writer.hpp"
#include "reference/golden_case.hpp"

namespace models_test {

namespace {

std::string merged(nlohmann::json config, const std::string& changes) {
  config.update(nlohmann::json::parse(changes));
  return config.dump(1);
}

}  // namespace

std::string small_olmoe(const std::string& changes) {
  return merged({{"model_type", "olmoe"},
                 {"hidden_size", 24},
                 {"num_hidden_layers", 2},
                 {"num_attention_heads", 4},
                 {"num_key_value_heads", 4},
                 {"intermediate_size", 10},
                 {"num_experts", 6},
                 {"num_experts_per_tok", 2},
                 {"vocab_size", 37},
                 {"rms_norm_eps", 1e-5},
                 {"rope_theta", 1e4},
                 {"norm_topk_prob", false},
                 {"router_aux_loss_coef", 0.05},
                 {"pad_token_id", 1},
                 {"tie_word_embeddings", false}},
                changes);
}

std::string small_mixtral(const std::string& changes) {
  return merged({{"model_type", "mixtral"},
                 {"hidden_size", 24},
                 {"num_hidden_layers", 2},
                 {"num_attention_heads", 6},
                 {"num_key_value_heads", 2},
                 {"intermediate_size", 10},
                 {"num_local_experts", 5},
                 {"num_experts_per_tok", 2},
                 {"vocab_size", 37},
                 {"rms_norm_eps", 1e-5},
                 {"rope_theta", 1e6},
                 {"router_aux_loss_coef", 0.08},
                 {"tie_word_embeddings", false},
                 {"sliding_window", nullptr}},
                changes);
}

RandomCheckpoint write_random_checkpoint(const std::string& config, const Layout& layout, const std::string& dir,
                                         std::uint64_t seed) {
  std::ofstream(dir + "/config.json") << config;
  const reference::RefConfig c = reference::read_config(dir + "/config.json");
  const std::string moe = c.mixtral ? ".block_sparse_moe." : ".mlp.";

  struct Named {
    std::string name;
    std::vector<std::int64_t> shape;
    std::vector<double> values;
  };

  std::vector<Named> tensors;
  reference::Weights<double> weights;
  const auto round = [&](double x) {
    return layout.dtype == perft::DType::bf16 ? static_cast<double>(static_cast<float>(perft::bf16(x)))
                                              : static_cast<double>(static_cast<float>(x));
  };
  const auto make = [&](const std::string& name, const std::vector<std::size_t>& shape) {
    Named tensor{name, {shape.begin(), shape.end()}, {}};
    std::size_t n = 1;
    for (const std::size_t extent : shape) n *= extent;
    const bool is_norm = shape.size() == 1;
    // Rows of unit length or so: activations keep their size, and routers decide clearly.
    const double scale = is_norm ? 0.5 : 2.0 / std::sqrt(static_cast<double>(shape.back()));
    for (const double x : numbers(n, seed_of(name) + seed, scale)) tensor.values.push_back(round(is_norm ? 1 + x : x));
    weights[name] = tensor.values;
    return tensor;
  };
  const auto add = [&](const std::string& name, const std::vector<std::size_t>& shape) {
    tensors.push_back(make(name, shape));
  };
  add("model.embed_tokens.weight", {c.vocab, c.hidden});
  for (std::size_t n = 0; n < c.layers; ++n) {
    const std::string layer = "model.layers." + std::to_string(n);
    add(layer + ".input_layernorm.weight", {c.hidden});
    add(layer + ".post_attention_layernorm.weight", {c.hidden});
    const std::size_t width = c.heads * c.head_dim, kv_width = c.kv_heads * c.head_dim;
    add(layer + ".self_attn.q_proj.weight", {width, c.hidden});
    add(layer + ".self_attn.k_proj.weight", {kv_width, c.hidden});
    add(layer + ".self_attn.v_proj.weight", {kv_width, c.hidden});
    add(layer + ".self_attn.o_proj.weight", {c.hidden, width});
    if (!c.mixtral) {
      add(layer + ".self_attn.q_norm.weight", {width});
      add(layer + ".self_attn.k_norm.weight", {kv_width});
    }
    add(layer + moe + "gate.weight", {c.experts, c.hidden});
    Named gate_up{layer + moe + "experts.gate_up_proj",
                  {static_cast<std::int64_t>(c.experts), static_cast<std::int64_t>(2 * c.intermediate),
                   static_cast<std::int64_t>(c.hidden)},
                  {}};
    Named down{layer + moe + "experts.down_proj",
               {static_cast<std::int64_t>(c.experts), static_cast<std::int64_t>(c.hidden),
                static_cast<std::int64_t>(c.intermediate)},
               {}};
    for (std::size_t e = 0; e < c.experts; ++e) {
      const std::string expert = layer + moe + "experts." + std::to_string(e) + ".";
      const std::vector<Named> three{
          make(expert + (c.mixtral ? "w1" : "gate_proj") + ".weight", {c.intermediate, c.hidden}),
          make(expert + (c.mixtral ? "w3" : "up_proj") + ".weight", {c.intermediate, c.hidden}),
          make(expert + (c.mixtral ? "w2" : "down_proj") + ".weight", {c.hidden, c.intermediate})};
      if (layout.fused) {
        gate_up.values.insert(gate_up.values.end(), three[0].values.begin(), three[0].values.end());
        gate_up.values.insert(gate_up.values.end(), three[1].values.begin(), three[1].values.end());
        down.values.insert(down.values.end(), three[2].values.begin(), three[2].values.end());
      } else {
        tensors.insert(tensors.end(), three.begin(), three.end());
      }
    }
    if (layout.fused) {
      tensors.push_back(std::move(gate_up));
      tensors.push_back(std::move(down));
    }
  }
  add("model.norm.weight", {c.hidden});
  if (!c.tie_word_embeddings) add("lm_head.weight", {c.vocab, c.hidden});

  nlohmann::json map;
  for (std::size_t shard = 0; shard < layout.shards; ++shard) {
    const std::string file = layout.shards == 1 ? "model.safetensors"
                                                : "model-" + std::to_string(shard + 1) + "-of-" +
                                                      std::to_string(layout.shards) + ".safetensors";
    std::deque<std::vector<float>> f32;
    std::deque<std::vector<perft::bf16>> bf16;
    std::vector<perft::TensorToWrite> to_write;
    for (std::size_t i = shard; i < tensors.size(); i += layout.shards) {  // neighbours lie in different files
      const Named& tensor = tensors[i];
      map["weight_map"][tensor.name] = file;
      if (layout.dtype == perft::DType::bf16) {
        auto& v = bf16.emplace_back();
        for (const double x : tensor.values) v.emplace_back(x);
        to_write.push_back({tensor.name, layout.dtype, tensor.shape, v.data(), v.size() * 2});
      } else {
        auto& v = f32.emplace_back();
        for (const double x : tensor.values) v.push_back(static_cast<float>(x));
        to_write.push_back({tensor.name, layout.dtype, tensor.shape, v.data(), v.size() * 4});
      }
    }
    perft::write_safetensors(dir + "/" + file, to_write);
  }
  if (layout.shards > 1) std::ofstream(dir + "/model.safetensors.index.json") << map.dump();
  return {c, weights};
}

perft::AdapterSpec golden_spec(const support::GoldenFile& golden) {
  std::int64_t rank = 0;
  std::vector<std::string> targets;
  for (const auto& [name, tensor] : golden.tensors) {
    if (!name.starts_with("param.")) continue;
    if (name.ends_with("lora_A.weight") || name.ends_with("w1.weight")) {
      rank = static_cast<std::int64_t>(tensor.shape.at(0));
    }
    if (name.ends_with(".lora_A.weight") && name.find(".perft.") == std::string::npos) {
      const std::string slot = name.substr(0, name.size() - std::string(".lora_A.weight").size());
      const std::string role = slot.substr(slot.rfind('.') + 1);
      if (std::find(targets.begin(), targets.end(), role) == targets.end()) targets.push_back(role);
    }
  }
  return spec_of(reference::describe_adapter(golden), rank, targets);
}

void write_golden_adapter(const support::GoldenFile& golden, const perft::BaseFacts& base, const std::string& dir) {
  std::deque<std::vector<float>> values;
  std::vector<perft::TensorToWrite> tensors;
  for (const auto& [name, tensor] : golden.tensors) {
    if (!name.starts_with("param.")) continue;
    std::vector<float>& v = values.emplace_back();
    for (const double x : tensor.values) v.push_back(static_cast<float>(x));
    tensors.push_back({name.substr(6),
                       perft::DType::f32,
                       {tensor.shape.begin(), tensor.shape.end()},
                       v.data(),
                       v.size() * sizeof(float)});
  }
  perft::write_safetensors(dir + "/adapter_model.safetensors", tensors);
  perft::write_text_atomically(dir + "/adapter_config.json",
                               perft::adapter_config_json(golden_spec(golden), base).dump());
}

}  // namespace models_test

TEST_CASE("changes to a small configuration are merged over it") {
  const auto json = nlohmann::json::parse(models_test::small_mixtral(R"({"num_local_experts": 3, "head_dim": 10})"));
  CHECK(json.at("num_local_experts") == 3);
  CHECK(json.at("head_dim") == 10);
  CHECK(json.at("hidden_size") == 24);
}

// What cases.hpp declares and is expensive to compile, once for this folder's tests: checkpoints.

#include "models/support/cases.hpp"

#include <catch2/catch.hpp>  // test cases
#include <deque>             // values that a writer points at
#include <fstream>           // config.json

#include "ops/support/harness.hpp"
#include "perft/io/safetensors_writer.hpp"

namespace models_test {

RandomCheckpoint write_random_checkpoint(const std::string& config, const Layout& layout, const std::string& dir,
                                         std::uint64_t seed) {
  std::ofstream(dir + "/config.json") << config;
  const reference::RefConfig c = reference_config(dir + "/config.json");
  const std::string moe = c.mixtral ? ".block_sparse_moe." : ".mlp.";

  struct Named {
    std::string name;
    std::vector<std::int64_t> shape;
    std::vector<double> values;
  };

  std::vector<Named> tensors;
  reference::Weights<double> weights;
  const auto round = [&](double x) {
    return layout.dtype == perft::DType::bf16  ? static_cast<double>(static_cast<float>(perft::bf16(x)))
           : layout.dtype == perft::DType::f16 ? harness::Half(x).value
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

  std::string map;  // "tensor":"file" for each
  for (std::size_t shard = 0; shard < layout.shards; ++shard) {
    const std::string file = layout.shards == 1 ? "model.safetensors"
                                                : "model-" + std::to_string(shard + 1) + "-of-" +
                                                      std::to_string(layout.shards) + ".safetensors";
    std::deque<std::vector<float>> f32;
    std::deque<std::vector<perft::bf16>> bf16;
    std::deque<std::vector<std::uint16_t>> f16;
    std::vector<perft::TensorToWrite> to_write;
    for (std::size_t i = shard; i < tensors.size(); i += layout.shards) {  // neighbours lie in different files
      const Named& tensor = tensors[i];
      map += (map.empty() ? "\"" : ",\"") + tensor.name + "\":\"" + file + "\"";
      if (layout.dtype == perft::DType::f16) {
        auto& v = f16.emplace_back();
        for (const double x : tensor.values) v.push_back(harness::Half(x).bits);
        to_write.push_back({tensor.name, layout.dtype, tensor.shape, v.data(), v.size() * 2});
      } else if (layout.dtype == perft::DType::bf16) {
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
  if (layout.shards > 1) std::ofstream(dir + "/model.safetensors.index.json") << R"({"weight_map":{)" << map << "}}";
  return {c, weights};
}

}  // namespace models_test

TEST_CASE("a random checkpoint holds what its file's type can hold, and a tied one no head") {
  using namespace models_test;
  const io_test::TempFolder one, two, three;
  const auto f32 = write_random_checkpoint(small_mixtral(), {}, one.path());
  const auto f16 = write_random_checkpoint(small_mixtral(), {.dtype = perft::DType::f16}, two.path());
  const auto tied = write_random_checkpoint(small_mixtral(R"({"tie_word_embeddings": true})"), {}, three.path());
  CHECK(f32.weights.size() == 1 + 2 * (2 + 4 + 1 + 3 * 5) + 2);
  CHECK(tied.weights.size() + 1 == f32.weights.size());
  const std::string name = "model.layers.1.block_sparse_moe.experts.4.w2.weight";
  const auto& full = f32.weights.at(name);
  const auto& half = f16.weights.at(name);
  CHECK(full != half);
  for (std::size_t i = 0; i < full.size(); ++i)
    CHECK(std::abs(half[i] - full[i]) <= std::abs(full[i]) * 0x1p-11 + 0x1p-25);
  CHECK(one.files() == 2);
}

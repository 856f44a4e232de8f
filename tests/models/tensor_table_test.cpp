#include "perft/models/tensor_table.hpp"

#include <algorithm>         // searching lists
#include <catch2/catch.hpp>  // test cases
#include <cstdint>           // integers
#include <functional>        // ways to spoil a checkpoint
#include <map>               // checkpoints in memory
#include <string>            // texts
#include <vector>            // tensors

#include "io/temp_folder.hpp"
#include "perft/io/safetensors_writer.hpp"

using io_test::TempFolder;
using perft::CheckpointTensors;
using perft::DType;
using perft::expected_tensors;
using perft::Family;
using perft::HubFolder;
using perft::IoError;
using perft::ModelConfig;
using perft::TensorSpec;
using Shape = std::vector<std::int64_t>;

namespace {

/// A model whose sizes all differ, so that a mixed-up shape shows: D 6, H 4, H_kv 2, d 2, F 5, N 3, V 7, 2 layers.
ModelConfig small(Family family) {
  ModelConfig c;
  c.family = family;
  c.hidden_size = 6;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = 2;
  c.intermediate_size = 5;
  c.num_experts = 3;
  c.num_experts_per_tok = 2;
  c.vocab_size = 7;
  return c;
}

struct Tensor {
  Shape shape;
  std::vector<float> values;
  DType dtype = DType::f32;
};

using Checkpoint = std::map<std::string, Tensor>;

/// Every expected tensor with values that no two share.
Checkpoint filled(const ModelConfig& config) {
  Checkpoint checkpoint;
  float next = 0;
  for (const TensorSpec& spec : expected_tensors(config)) {
    Tensor& tensor = checkpoint[spec.name];
    tensor.shape = spec.shape;
    std::int64_t n = 1;
    for (const std::int64_t extent : spec.shape) n *= extent;
    for (std::int64_t i = 0; i < n; ++i) tensor.values.push_back(next++);
  }
  return checkpoint;
}

/// The fused form of one layer: removes the per-expert tensors and adds gate_up_proj and down_proj under `prefix`.
void fuse(Checkpoint& checkpoint, const ModelConfig& c, std::int64_t layer, const std::string& prefix) {
  Tensor gate_up{{c.num_experts, 2 * c.intermediate_size, c.hidden_size}, {}};
  Tensor down{{c.num_experts, c.hidden_size, c.intermediate_size}, {}};
  for (std::int64_t e = 0; e < c.num_experts; ++e) {
    using perft::ExpertMatrix;
    for (const ExpertMatrix m : {ExpertMatrix::gate, ExpertMatrix::up, ExpertMatrix::down}) {
      const std::string name = perft::expert_name(c.family, layer, e, m);
      std::vector<float>& to = m == ExpertMatrix::down ? down.values : gate_up.values;
      to.insert(to.end(), checkpoint[name].values.begin(), checkpoint[name].values.end());
      checkpoint.erase(name);
    }
  }
  checkpoint[prefix + "experts.gate_up_proj"] = gate_up;
  checkpoint[prefix + "experts.down_proj"] = down;
}

/// Writes the checkpoint as a folder's model.safetensors and opens it.
HubFolder write(const TempFolder& folder, const Checkpoint& checkpoint) {
  std::vector<perft::TensorToWrite> tensors;
  for (const auto& [name, tensor] : checkpoint) {
    std::size_t n = 1;
    for (const std::int64_t extent : tensor.shape) n *= static_cast<std::size_t>(extent);
    // Types of two bytes show the first half of the floats' bytes; only their form is looked at.
    tensors.push_back({name, tensor.dtype, tensor.shape, tensor.values.data(), n * perft::dtype_size(tensor.dtype)});
  }
  perft::write_safetensors(folder.path("model.safetensors"), tensors);
  folder.write("config.json", "{}");
  return HubFolder::open(folder.path());
}

void check_same(const CheckpointTensors& tensors, const Checkpoint& truth) {
  REQUIRE(tensors.specs().size() == truth.size());
  REQUIRE(tensors.entries().size() == truth.size());
  for (std::size_t i = 0; i < truth.size(); ++i) {
    const std::string& name = tensors.specs()[i].name;
    CHECK(&tensors.at(name) == &tensors.entries()[i]);
    CHECK(tensors.at(name).name == name);
    CHECK(tensors.at(name).shape == truth.at(name).shape);
    CHECK(perft::read_as<float>(tensors.at(name)) == truth.at(name).values);
  }
}

}  // namespace

TEST_CASE("the table of OLMoE has the hub's names, order and shapes") {
  const std::vector<TensorSpec> specs = expected_tensors(small(Family::olmoe));
  std::vector<TensorSpec> expected = {{"model.embed_tokens.weight", {7, 6}}};
  for (const std::string l : {"model.layers.0.", "model.layers.1."}) {
    expected.push_back({l + "self_attn.q_proj.weight", {8, 6}});
    expected.push_back({l + "self_attn.k_proj.weight", {4, 6}});
    expected.push_back({l + "self_attn.v_proj.weight", {4, 6}});
    expected.push_back({l + "self_attn.o_proj.weight", {6, 8}});
    expected.push_back({l + "self_attn.q_norm.weight", {8}});
    expected.push_back({l + "self_attn.k_norm.weight", {4}});
    expected.push_back({l + "mlp.gate.weight", {3, 6}});
    for (const std::string e : {"0", "1", "2"}) {
      expected.push_back({l + "mlp.experts." + e + ".gate_proj.weight", {5, 6}});
      expected.push_back({l + "mlp.experts." + e + ".up_proj.weight", {5, 6}});
      expected.push_back({l + "mlp.experts." + e + ".down_proj.weight", {6, 5}});
    }
    expected.push_back({l + "input_layernorm.weight", {6}});
    expected.push_back({l + "post_attention_layernorm.weight", {6}});
  }
  expected.push_back({"model.norm.weight", {6}});
  expected.push_back({"lm_head.weight", {7, 6}});
  REQUIRE(specs.size() == expected.size());
  for (std::size_t i = 0; i < specs.size(); ++i) {
    CHECK(specs[i].name == expected[i].name);
    CHECK(specs[i].shape == expected[i].shape);
  }
}

TEST_CASE("the table of Mixtral has the hub's names, order and shapes") {
  ModelConfig config = small(Family::mixtral);
  config.num_hidden_layers = 1;
  config.num_experts = 2;
  config.tie_word_embeddings = true;
  const std::vector<TensorSpec> specs = expected_tensors(config);
  const std::string l = "model.layers.0.";
  const std::vector<TensorSpec> expected = {{"model.embed_tokens.weight", {7, 6}},
                                            {l + "self_attn.q_proj.weight", {8, 6}},
                                            {l + "self_attn.k_proj.weight", {4, 6}},
                                            {l + "self_attn.v_proj.weight", {4, 6}},
                                            {l + "self_attn.o_proj.weight", {6, 8}},
                                            {l + "block_sparse_moe.gate.weight", {2, 6}},
                                            {l + "block_sparse_moe.experts.0.w1.weight", {5, 6}},
                                            {l + "block_sparse_moe.experts.0.w2.weight", {6, 5}},
                                            {l + "block_sparse_moe.experts.0.w3.weight", {5, 6}},
                                            {l + "block_sparse_moe.experts.1.w1.weight", {5, 6}},
                                            {l + "block_sparse_moe.experts.1.w2.weight", {6, 5}},
                                            {l + "block_sparse_moe.experts.1.w3.weight", {5, 6}},
                                            {l + "input_layernorm.weight", {6}},
                                            {l + "post_attention_layernorm.weight", {6}},
                                            {"model.norm.weight", {6}}};
  REQUIRE(specs.size() == expected.size());
  for (std::size_t i = 0; i < specs.size(); ++i) {
    CHECK(specs[i].name == expected[i].name);
    CHECK(specs[i].shape == expected[i].shape);
  }
}

TEST_CASE("expert matrices under hub names") {
  using perft::ExpertMatrix;
  const auto last = [](Family family, ExpertMatrix matrix) { return perft::expert_name(family, 3, 12, matrix); };
  CHECK(last(Family::olmoe, ExpertMatrix::gate) == "model.layers.3.mlp.experts.12.gate_proj.weight");
  CHECK(last(Family::olmoe, ExpertMatrix::up) == "model.layers.3.mlp.experts.12.up_proj.weight");
  CHECK(last(Family::olmoe, ExpertMatrix::down) == "model.layers.3.mlp.experts.12.down_proj.weight");
  CHECK(last(Family::mixtral, ExpertMatrix::gate) == "model.layers.3.block_sparse_moe.experts.12.w1.weight");
  CHECK(last(Family::mixtral, ExpertMatrix::up) == "model.layers.3.block_sparse_moe.experts.12.w3.weight");
  CHECK(last(Family::mixtral, ExpertMatrix::down) == "model.layers.3.block_sparse_moe.experts.12.w2.weight");
  CHECK(perft::router_name(Family::mixtral, 10) == "model.layers.10.block_sparse_moe.gate.weight");
}

TEST_CASE("the hub's layout resolves to itself") {
  for (const Family family : {Family::olmoe, Family::mixtral}) {
    const TempFolder folder;
    const ModelConfig config = small(family);
    const Checkpoint checkpoint = filled(config);
    const CheckpointTensors tensors = CheckpointTensors::open(write(folder, checkpoint), config);
    check_same(tensors, checkpoint);
    CHECK(tensors.at("model.norm.weight").data >= tensors.at("model.norm.weight").file->bytes().data());  // a view
    CHECK_THROWS_WITH(tensors.at("model.nrom.weight"),
                      "tensor \"model.nrom.weight\" is not one of this model's, expected a name of expected_tensors");
  }
}

TEST_CASE("fused experts give the same per-expert tensors") {
  struct Case {
    Family family;
    std::vector<std::string> block;  // of layers 0 and 1; "" keeps the hub's form
  };

  for (const Case& form :
       {Case{Family::olmoe, {"mlp.", "mlp."}}, Case{Family::olmoe, {"", "mlp."}},
        Case{Family::mixtral, {"mlp.", "mlp."}}, Case{Family::mixtral, {"block_sparse_moe.", "block_sparse_moe."}},
        Case{Family::mixtral, {"block_sparse_moe.", "mlp."}}}) {
    const TempFolder folder;
    const ModelConfig config = small(form.family);
    const Checkpoint truth = filled(config);
    Checkpoint checkpoint = truth;
    for (std::int64_t layer = 0; layer < 2; ++layer) {
      const std::string& block = form.block[static_cast<std::size_t>(layer)];
      if (!block.empty()) fuse(checkpoint, config, layer, perft::layer_prefix(layer) + block);
    }
    check_same(CheckpointTensors::open(write(folder, checkpoint), config), truth);
  }
}

TEST_CASE("Mixtral's block may be called mlp, as transformers 5 does") {
  const TempFolder folder;
  const ModelConfig config = small(Family::mixtral);
  const Checkpoint truth = filled(config);
  Checkpoint checkpoint;
  for (const auto& [name, tensor] : truth) {
    const std::size_t at = name.find(".block_sparse_moe.");
    checkpoint[at == std::string::npos ? name : name.substr(0, at) + ".mlp." + name.substr(at + 18)] = tensor;
  }
  check_same(CheckpointTensors::open(write(folder, checkpoint), config), truth);
}

TEST_CASE("BF16 and F16 weights are taken, rotary buffers and a tied head ignored") {
  const TempFolder folder;
  ModelConfig config = small(Family::olmoe);
  Checkpoint checkpoint = filled(config);
  checkpoint["model.norm.weight"].dtype = DType::bf16;
  checkpoint["lm_head.weight"].dtype = DType::f16;
  checkpoint["model.layers.0.self_attn.rotary_emb.inv_freq"] = {{1}, {1.0F}};
  const CheckpointTensors untied = CheckpointTensors::open(write(folder, checkpoint), config);
  CHECK(untied.at("model.norm.weight").dtype == DType::bf16);
  CHECK(untied.at("lm_head.weight").dtype == DType::f16);
  config.tie_word_embeddings = true;
  const CheckpointTensors tied = CheckpointTensors::open(write(folder, checkpoint), config);
  CHECK_THROWS_AS(tied.at("lm_head.weight"), perft::ValueError);
  checkpoint.erase("lm_head.weight");
  CHECK(CheckpointTensors::open(write(folder, checkpoint), config).entries().size() == checkpoint.size() - 1);
}

TEST_CASE("a checkpoint that does not fit its config is refused by file and tensor") {
  const auto refusal = [](Family family, const std::function<void(Checkpoint&, const ModelConfig&)>& spoil) {
    const TempFolder folder;
    const ModelConfig config = small(family);
    Checkpoint checkpoint = filled(config);
    spoil(checkpoint, config);
    const std::string message =
        io_test::message_of<IoError>([&] { CheckpointTensors::open(write(folder, checkpoint), config); });
    REQUIRE(message.starts_with(folder.path("model.safetensors: ")));
    return message.substr(folder.path("model.safetensors: ").size());
  };
  CHECK(refusal(Family::olmoe, [](Checkpoint& c, const ModelConfig&) { c.erase("lm_head.weight"); }) ==
        "tensor \"lm_head.weight\" is missing, expected shape [7, 6]; check config.json or download the weights again");
  CHECK(refusal(Family::olmoe,
                [](Checkpoint& c, const ModelConfig&) {
                  c.erase("lm_head.weight");
                  c.erase("model.layers.1.mlp.experts.2.up_proj.weight");
                }) ==
        "tensor \"model.layers.1.mlp.experts.2.up_proj.weight\" is missing (and 1 more), expected shape "
        "[5, 6]; check config.json or download the weights again");
  const std::string belongs = " from config.json; check that both belong together";
  CHECK(refusal(Family::olmoe, [](Checkpoint& c, const ModelConfig&) {
          c["model.norm.weight"] = {{1, 6}, {0, 0, 0, 0, 0, 0}};
        }) == "tensor \"model.norm.weight\" has shape [1, 6], expected [6]" + belongs);
  CHECK(refusal(Family::olmoe, [](Checkpoint& c, const ModelConfig&) {
          std::swap(c["model.layers.0.self_attn.q_proj.weight"], c["model.layers.0.self_attn.o_proj.weight"]);
        }) == "tensor \"model.layers.0.self_attn.o_proj.weight\" has shape [8, 6], expected [6, 8]" + belongs);
  CHECK(refusal(Family::olmoe, [](Checkpoint& c, const ModelConfig&) { c["model.norm.weight"].dtype = DType::i32; }) ==
        "tensor \"model.norm.weight\" has dtype I32, expected F32, BF16 or F16 [6]; convert the checkpoint");
  CHECK(
      refusal(Family::olmoe, [](Checkpoint& c, const ModelConfig&) {
        c["extra"] = {{1}, {0}};
      }) == "tensor \"extra\" is unknown, expected only those of olmoe with 2 layers and 3 experts; check config.json");
  for (const std::string name : {"model.layers.2.mlp.gate.weight", "model.layers.0.mlp.experts.3.up_proj.weight",
                                 "model.layers.00.mlp.gate.weight", "model.layers.0.block_sparse_moe.gate.weight",
                                 "model.layers.2.mlp.experts.down_proj", "model.layers..mlp.gate.weight"}) {
    CHECK(refusal(Family::olmoe,
                  [&](Checkpoint& c, const ModelConfig&) {
                    c[name] = {{1}, {0}};
                  }) ==
          "tensor \"" + name +
              "\" is unknown, expected only those of olmoe with 2 layers and 3 experts; check config.json");
  }
  CHECK(refusal(Family::mixtral,
                [](Checkpoint& c, const ModelConfig&) {
                  c["model.layers.0.mlp.gate.weight"] = c["model.layers.0.block_sparse_moe.gate.weight"];
                }) ==
        "tensor \"model.layers.0.mlp.gate.weight\" gives model.layers.0.block_sparse_moe.gate.weight a second "
        "time, expected it once; remove one of the two layouts");
  CHECK(refusal(Family::olmoe,
                [](Checkpoint& c, const ModelConfig& config) {
                  Checkpoint copy = c;
                  fuse(copy, config, 1, "model.layers.1.mlp.");
                  c.insert(copy.begin(), copy.end());
                }) ==
        "tensor \"model.layers.1.mlp.experts.down_proj\" gives model.layers.1.mlp.experts.0.down_proj.weight "
        "a second time, expected it once; remove one of the two layouts");
  CHECK(refusal(Family::olmoe, [](Checkpoint& c, const ModelConfig& config) {
          fuse(c, config, 0, "model.layers.0.mlp.");
          c["model.layers.0.mlp.experts.gate_up_proj"].shape = {3, 6, 10};
        }) == "tensor \"model.layers.0.mlp.experts.gate_up_proj\" has shape [3, 6, 10], expected [3, 10, 6]" + belongs);
  CHECK(refusal(Family::olmoe,
                [](Checkpoint& c, const ModelConfig& config) {
                  fuse(c, config, 0, "model.layers.0.mlp.");
                  c.erase("model.layers.0.mlp.experts.down_proj");
                }) ==
        "tensor \"model.layers.0.mlp.experts.0.down_proj.weight\" is missing (and 2 more), expected shape [6, 5]; "
        "check config.json or download the weights again");
}

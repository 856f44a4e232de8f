// Golden files as adapter folders, once for this folder's tests.

#include <catch2/catch.hpp>  // test cases
#include <deque>             // values that a writer points at

#include "models/support/cases.hpp"
#include "perft/io/safetensors_writer.hpp"
#include "reference/golden_case.hpp"

namespace models_test {

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

TEST_CASE("a golden file's adapter is read from its tensors") {
  support::GoldenFile golden;
  golden.metadata["variant"] = "lora-qv";
  golden.metadata["alpha"] = "6";
  for (const std::string slot : {"q_proj", "v_proj"}) {
    golden.tensors["param.model.layers.0.self_attn." + slot + ".lora_A.weight"] = {"F32", {3, 8}, {}, {}};
    golden.tensors["param.model.layers.0.self_attn." + slot + ".lora_B.weight"] = {"F32", {8, 3}, {}, {}};
  }
  const perft::AdapterSpec spec = models_test::golden_spec(golden);
  CHECK(spec.method == perft::Method::kLora);
  CHECK(spec.rank == 3);
  CHECK(spec.alpha == 6);
  CHECK(spec.targets == std::vector<std::string>{"q_proj", "v_proj"});
}

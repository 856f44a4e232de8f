// attach() on what is no model of ours: nothing to hang an adapter on, or slots in odd places.

#include "perft/peft/attach.hpp"

#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <utility>

#include "models/support/module_instances.hpp"
#include "ops/support/harness.hpp"

PERFT_TEST_MODULES(extern template, float)

using perft::AdapterSpec;
using perft::Method;

namespace {

/// One linear slot [2, 3] at `path`, or none.
struct OneSlot {
  std::string path;
  std::unique_ptr<perft::LinearSlot<float>> slot = std::make_unique<perft::Linear<float>>(
      perft::Weight<float>("w", harness::tensor<float>({1, 2, 3, 4, 5, 6}, {2, 3})));

  explicit OneSlot(std::string where) : path(std::move(where)) {}

  void visit(perft::Visitor<float>& visitor) {
    if (!path.empty()) visitor.linear_slot(path, slot);
  }
};

AdapterSpec spec_of(Method method, std::vector<std::string> targets) {
  AdapterSpec spec;
  spec.method = method;
  spec.rank = 2;
  spec.experts = method == Method::kPerftS ? 1 : 0;
  spec.top_k = 0;
  spec.targets = std::move(targets);
  return spec;
}

std::string refusal(const std::string& path, const AdapterSpec& spec) {
  OneSlot model(path);
  const auto* before = model.slot.get();
  const std::string text = harness::error_text<perft::ValueError>([&] { perft::attach<float>(model, spec, 0.02, 1); });
  CHECK(model.slot.get() == before);
  return text;
}

}  // namespace

TEST_CASE("attach: what the model lacks is named") {
  CHECK(refusal("", spec_of(Method::kPerftS, {})) == "adapter: the model has no MoE block");
  CHECK(
      refusal("model.layers.0.self_attn.q_proj", spec_of(Method::kLora, {"q_proj", "o_proj"})) ==
      "adapter: LoRA target 'o_proj' matches nothing in this model, expected some of [q_proj, k_proj, v_proj, o_proj, "
      "gate, gate_proj, up_proj, down_proj]");
}

TEST_CASE("attach: a slot outside the layers has no place for ranks and dropout") {
  for (const std::string path :
       {"q_proj", "model.layers.x.q_proj", "encoder.layers.0.q_proj", "model.layers.-1.q_proj"}) {
    CHECK(refusal(path, spec_of(Method::kLora, {"q_proj"})) ==
          "adapter: slot '" + path + "' hangs under no layer, expected model.layers.<number>.…");
  }
  OneSlot model("model.layers.12.q_proj");
  perft::attach<float>(model, spec_of(Method::kLora, {"q_proj"}), 0.02, 1);
  CHECK(model.slot->adapted());
  perft::detach<float>(model);
  CHECK_FALSE(model.slot->adapted());
}

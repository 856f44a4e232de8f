// Frozen means frozen: no gradient of a frozen matrix is formed, none is owned.

#include <catch2/catch.hpp>
#include <set>
#include <string>
#include <vector>

#include "models/support/cases.hpp"
#include "models/support/engine.hpp"
#include "ops/support/harness.hpp"
#include "perft/models/causal_lm.hpp"

using namespace models_test;

namespace {

perft::AdapterSpec perft_spec(perft::Method method, std::int64_t experts, std::int64_t top_k) {
  perft::AdapterSpec spec;
  spec.method = method;
  spec.rank = 3;
  spec.alpha = 6;
  spec.experts = experts;
  spec.top_k = top_k;
  return spec;
}

perft::AdapterSpec lora_spec(std::vector<std::string> targets) {
  perft::AdapterSpec spec = perft_spec(perft::Method::kLora, 0, 0);
  spec.targets = std::move(targets);
  return spec;
}

std::vector<perft::AdapterSpec> all_methods() {
  using perft::Method;
  std::vector<perft::AdapterSpec> all{
      perft_spec(Method::kPerftS, 1, 0),
      perft_spec(Method::kPerftD, 3, 0),
      perft_spec(Method::kPerftR, 4, 2),
      perft_spec(Method::kPerftE, 0, 0),
      lora_spec({"q_proj", "k_proj", "v_proj", "o_proj"}),
      lora_spec({"gate"}),
      lora_spec({"gate_proj", "up_proj", "down_proj"}),
  };
  all.push_back(all[3]);
  all.back().delta = perft::DeltaForm::kParallel;
  all.push_back(all[2]);
  all.back().router_weights = perft::RouterWeights::kAuthorsOlmoe;
  return all;
}

/// Names of the frozen matrices and vectors, and of those among them that own a gradient.
template <class C>
struct Frozen final : perft::Visitor<C> {
  std::set<std::string> names, with_gradient;

  void weight(perft::Weight<perft::Param<C>>& weight) override {
    if (weight.trained() == nullptr) {
      names.insert(weight.name());
      if (weight.parameter() != nullptr && weight.parameter()->gradient().defined())
        with_gradient.insert(weight.name());
    }
  }

  void parameter(perft::Parameter<perft::Param<C>>& parameter) override {
    if (!parameter.trainable()) {
      names.insert(parameter.name());
      if (parameter.gradient().defined()) with_gradient.insert(parameter.name());
    }
  }
};

}  // namespace

TEMPLATE_TEST_CASE("no method forms the gradient of a frozen tensor, and every adapter tensor gets one", "", float,
                   perft::bf16) {
  const io_test::TempFolder folder;
  const auto checkpoint = write_random_checkpoint(small_olmoe(), {}, folder.path());
  // Enough tokens for every expert to be chosen: the gradient of one that is not is zero.
  const perft::Batch batch = padded(random_batch({{0, 20}, {4, 20}, {0, 16}}, 20, 37, 1, 3), 37).batch;
  for (const perft::AdapterSpec& spec : all_methods()) {
    INFO(perft::method_name(spec.method));
    Engine<TestType> engine(folder.path());
    engine.attach(spec);
    (void)randomise(engine.trained());
    std::set<std::string, std::less<>> trained;
    for (const auto* parameter : engine.trained()) trained.insert(parameter->name());
    for (const bool recompute : {false, true}) {
      const harness::OnlyTrained only(trained);
      engine.clear_gradients();
      perft::LossOptions options = whole_batch(batch, 0.05);
      options.recompute_layers = recompute;
      options.hidden = recompute ? perft::HiddenPolicy::kRecompute : perft::HiddenPolicy::kSave;
      REQUIRE_NOTHROW(engine.accumulate(batch, options));
    }
    Frozen<TestType> frozen;
    engine.model().visit(frozen);
    CHECK(frozen.names.size() == checkpoint.weights.size());  // attaching trains nothing of the base
    CHECK(frozen.with_gradient.empty());
    for (const auto* parameter : engine.trained()) {
      INFO(parameter->name());
      REQUIRE(parameter->gradient().defined());
      bool any = false;
      for (const auto x : parameter->gradient().span()) any = any || x != 0;
      CHECK(any);
    }
  }
}

TEST_CASE("the hook that guards frozen tensors sees every gradient of full fine-tuning") {
  const io_test::TempFolder folder;
  const auto checkpoint = write_random_checkpoint(small_olmoe(R"({"num_hidden_layers": 1})"), {}, folder.path());
  const perft::Batch batch = padded(random_batch({{0, 7}, {2, 7}}, 7, 37, 1, 3), 37).batch;
  Engine<float> engine(folder.path());
  engine.train_everything();
  std::set<std::string, std::less<>> all;
  for (const auto& [name, value] : checkpoint.weights) all.insert(name);
  {
    const harness::OnlyTrained only(all);
    REQUIRE_NOTHROW(engine.accumulate(batch, whole_batch(batch, 0.05)));
  }
  for (const auto& [name, value] : checkpoint.weights) {  // one matrix withheld: exactly its gradient is refused
    // Vectors and the looked-up table have no product dW; what is frozen there has no parameter to add into.
    if (name.ends_with("norm.weight") || name == "model.embed_tokens.weight") continue;
    auto rest = all;
    rest.erase(name);
    const harness::OnlyTrained only(rest);
    INFO(name);
    CHECK(harness::error_text<std::logic_error>([&] { engine.accumulate(batch, whole_batch(batch, 0.05)); }) ==
          "the gradient of frozen '" + name + "' was formed");
  }
}

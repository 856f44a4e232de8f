// Frozen means frozen: no gradient of a frozen matrix is formed, none is owned, and a step keeps exactly the
// activations that the adapters need.

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

reference::RefBatch batch_of_two() {
  return random_batch({{0, 7}, {2, 7}}, 7, 37, 1, 3);
}

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
  const perft::Batch batch = padded(batch_of_two(), 37).batch;
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

TEMPLATE_TEST_CASE("PERFT-R on two layers keeps exactly these bytes, and nothing below the first adapter", "", float,
                   perft::bf16) {
  using C = TestType;
  const io_test::TempFolder folder;
  (void)write_random_checkpoint(small_olmoe(), {}, folder.path());
  Engine<C> engine(folder.path());
  engine.attach(perft_spec(perft::Method::kPerftR, 4, 2));
  const perft::Batch batch = padded(batch_of_two(), 37).batch;

  const auto T = static_cast<std::size_t>(batch.tokens());
  const auto n = batch.targets.size();
  const std::size_t D = 24, H = 4, d = 6, N = 6, F = 10, K = 2, M = 4, k = 2, r = 3;
  const std::size_t c = sizeof(C), p = sizeof(float), i = sizeof(std::int32_t);
  REQUIRE(T == 13);  // 7 + 5 and one token for the padding
  REQUIRE(n > 5);

  const std::size_t x = T * D * c;  // activations of one width
  const models_test::RecordedNode frozen_linear{"linear", 0}, add{"add", 0}, rope{"rope", 0};
  const models_test::RecordedNode norm{"rms_norm", x + T * p};  // x and 1 / rms
  // A recorded norm keeps its input, from which its result is formed again: what takes that result keeps nothing of it.
  const models_test::RecordedNode router{"linear", 0};        // G̃
  const models_test::RecordedNode first_router{"linear", x};  // G̃ of layer 0: dW needs x, and its norm is not recorded
  const models_test::RecordedNode own_routing{"router_topk",
                                              T * (M * p + k * i)};  // probabilities, ids; weights only if renormalised
  const models_test::RecordedNode base_routing{"router_topk", T * (N * p + K * i)};
  const models_test::RecordedNode low_rank{"low_rank", T * k * (r * p + i + p)};  // A x, ids, weights
  const models_test::RecordedNode first_low_rank{"low_rank", x + low_rank.bytes};
  const models_test::RecordedNode attention{"attention",
                                            2 * x + T * H * p};  // v, o, log-sum-exp; q, k come from the norms
  const models_test::RecordedNode experts{"moe_experts", T * K * p + T * K * 2 * F * c + (3 * T * K + N + 1) * i};
  const models_test::RecordedNode head{"cross_entropy", T * D * p + 2 * n * i};  // dh instead of logits
  REQUIRE(H * d == D);

  const std::vector<models_test::RecordedNode> expected{
      // Layer 0: attention, norms, base router and experts feed no trainable tensor.
      first_router, own_routing, first_low_rank, add, add,
      // Layer 1.
      norm, frozen_linear, frozen_linear, frozen_linear, norm, rope, norm, rope, attention, frozen_linear, add,  //
      norm, frozen_linear, base_routing, experts, router, own_routing, low_rank, add, add,
      // The end.
      norm, head};
  perft::LossOptions options = whole_batch(batch, 0.05);
  const auto recorded = engine.recorded(batch, options);
  REQUIRE(recorded.size() == expected.size());
  std::size_t sum = 0;
  for (std::size_t node = 0; node < expected.size(); ++node) {
    INFO("node " << node << ", " << expected[node].name);
    CHECK(recorded[node].name == expected[node].name);
    CHECK(recorded[node].bytes == expected[node].bytes);
    sum += expected[node].bytes;
  }
  CHECK(engine.accumulate(batch, options).saved_bytes == sum);

  options.hidden = perft::HiddenPolicy::kRecompute;
  CHECK(engine.accumulate(batch, options).saved_bytes == sum - T * K * 2 * F * c);
  options.recompute_layers = true;
  CHECK(engine.accumulate(batch, options).saved_bytes == 2 * x + norm.bytes + head.bytes);
}

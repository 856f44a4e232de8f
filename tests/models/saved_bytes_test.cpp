// What a step keeps between forward and backward, node by node and to the byte, for every kind of method on both
// families. The numbers are worked out from what each derivative needs, never from what the nodes say.

#include <algorithm>
#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <vector>

#include "models/support/cases.hpp"
#include "models/support/engine.hpp"

using namespace models_test;

namespace {

using Nodes = std::vector<RecordedNode>;

void append(Nodes& all, const RecordedNode& node) {
  all.push_back(node);
}

void append(Nodes& all, const Nodes& nodes) {
  all.insert(all.end(), nodes.begin(), nodes.end());
}

/// Nodes and lists of nodes, one after another.
template <class... Parts>
Nodes sequence(const Parts&... parts) {
  Nodes all;
  (append(all, parts), ...);
  return all;
}

constexpr std::size_t kRank = 3;
constexpr std::size_t kParam = sizeof(float), kIndex = sizeof(std::int32_t);

/// The nodes of a small model's layers, each with the bytes that its derivative needs. c: bytes of an activation.
/// Of a recorded norm's result nothing is kept: it is formed again from the norm's input (`of_norm`).
struct Sizes {
  std::size_t c = 0;
  bool olmoe = true;  // q/k norm, top-k weights as they are; else GQA and renormalised weights
  std::size_t T = 0, n = 0;
  std::size_t D = 24, F = 10, K = 2;
  std::size_t H = olmoe ? 4 : 6, q_width = 24, kv_width = olmoe ? 24 : 8, N = olmoe ? 6 : 5;

  /// An activation [T, width].
  std::size_t matrix(std::size_t width) const { return T * width * c; }

  // Gate | up before the activation function, of every chosen expert.
  std::size_t hidden() const { return T * K * 2 * F * c; }

  RecordedNode nothing(const char* name) const { return {name, 0}; }

  RecordedNode frozen_linear() const { return nothing("linear"); }

  RecordedNode trained_linear(std::size_t in, bool of_norm) const {
    return {"linear", of_norm ? 0 : matrix(in)};  // dW = dyᵀ x
  }

  RecordedNode norm(std::size_t width) const { return {"rms_norm", matrix(width) + T * kParam}; }  // x, 1 / rms

  /// Probabilities and ids; the weights only where their sum was divided out.
  RecordedNode routing(std::size_t experts, std::size_t top_k) const {
    return {"router_topk", T * (experts * kParam + top_k * kIndex + (olmoe ? 0 : top_k * kParam))};
  }

  /// x and A x; ids and weights where tokens are routed.
  RecordedNode low_rank(std::size_t slots, bool routed, bool of_norm) const {
    return {"low_rank", (of_norm ? 0 : matrix(D)) + T * slots * (kRank * kParam + (routed ? kIndex + kParam : 0))};
  }

  /// v, o, log-sum-exp; q and k unless a q/k norm, whose derivative keeps its input, can give them again.
  RecordedNode attention(bool keeps_q, bool keeps_k) const {
    return {"attention", matrix(kv_width) + matrix(q_width) + T * H * kParam + (keeps_q ? matrix(q_width) : 0) +
                             (keeps_k ? matrix(kv_width) : 0)};
  }

  /// Weights, the hidden state, the plan (token, slot and back for every entry, a begin per expert). x is needed by the
  /// derivatives of gate and up alone.
  RecordedNode experts(bool keeps_x, std::size_t lora_branches = 0) const {
    return {"moe_experts", (keeps_x ? matrix(D) : 0) + T * K * kParam + hidden() + (3 * T * K + N + 1) * kIndex +
                               lora_branches * T * K * kRank * kParam};
  }

  /// Frozen: dh, formed in the forward pass. Trained: h, the result of a norm.
  RecordedNode head(bool trained) const { return {"cross_entropy", (trained ? 0 : T * D * kParam) + 2 * n * kIndex}; }

  /// From a layer's input, which is differentiated, to the sum with it.
  Nodes attention_half() const {
    const Nodes qk = olmoe ? Nodes{norm(q_width), nothing("rope"), norm(kv_width), nothing("rope")}
                           : Nodes{nothing("rope"), nothing("rope")};
    return sequence(norm(D), frozen_linear(), frozen_linear(), frozen_linear(), qk, attention(!olmoe, !olmoe),
                    frozen_linear(), nothing("add"));
  }

  /// From there to the frozen router's choice.
  Nodes router_half() const { return {norm(D), frozen_linear(), routing(N, K)}; }

  /// PERFT-R, top-2 of 4, from its router to the residual sum.
  Nodes perft_r(bool of_norm) const {
    return {trained_linear(D, of_norm), routing(4, 2), low_rank(2, true, of_norm), nothing("add"), nothing("add")};
  }

  Nodes end(bool trained = false) const { return {norm(D), head(trained)}; }
};

perft::AdapterSpec spec_of(perft::Method method) {
  perft::AdapterSpec spec;
  spec.method = method;
  spec.rank = kRank;
  spec.alpha = 6;
  spec.experts = method == perft::Method::kPerftR ? 4 : 0;
  spec.top_k = method == perft::Method::kPerftR ? 2 : 0;
  return spec;
}

template <class C>
struct Case {
  io_test::TempFolder folder;
  Sizes sizes;
  perft::Batch batch = padded(random_batch({{0, 7}, {2, 7}}, 7, 37, 1, 3), 37).batch;
  std::unique_ptr<Engine<C>> engine;

  explicit Case(bool olmoe) : sizes{.c = sizeof(C), .olmoe = olmoe} {
    (void)write_random_checkpoint(olmoe ? small_olmoe() : small_mixtral(), {}, folder.path());
    engine = std::make_unique<Engine<C>>(folder.path());
    sizes.T = static_cast<std::size_t>(batch.tokens());
    sizes.n = batch.targets.size();
    REQUIRE(sizes.T == 13);  // 7 + 5 and one token for the padding
    REQUIRE(sizes.n > 5);
  }

  /// What is kept beside the nodes, and how the recorded experts are.
  struct Facts {
    std::size_t experts = 2;      // recorded
    std::size_t needs_input = 0;  // of them, those that keep x only to form gate and up again
    bool trained_head = false;
    std::size_t below = 0;  // kept before the first layer
  };

  /// Every node, their sum, and the sum under both ways to keep less.
  void check(const Nodes& expected, const Facts& facts) {
    perft::LossOptions options = whole_batch(batch, 0.05);
    const Nodes recorded = engine->recorded(batch, options);
    std::size_t sum = 0;
    for (std::size_t node = 0; node < std::min(recorded.size(), expected.size()); ++node) {
      INFO("node " << node << ", " << expected[node].name);
      CHECK(recorded[node].name == expected[node].name);
      CHECK(recorded[node].bytes == expected[node].bytes);
      sum += expected[node].bytes;
    }
    REQUIRE(recorded.size() == expected.size());
    CHECK(engine->accumulate(batch, options).saved_bytes == sum);

    const std::size_t x = sizes.matrix(sizes.D);
    options.hidden = perft::HiddenPolicy::kRecompute;
    sum += facts.needs_input * x;
    CHECK(engine->accumulate(batch, options).saved_bytes == sum - facts.experts * sizes.hidden());
    options.recompute_layers = true;
    CHECK(engine->accumulate(batch, options).saved_bytes ==
          facts.below + 2 * x + sizes.norm(sizes.D).bytes + sizes.head(facts.trained_head).bytes);
  }
};

}  // namespace

TEMPLATE_TEST_CASE("PERFT-R on OLMoE keeps exactly these bytes, and nothing below the first adapter", "", float,
                   perft::bf16) {
  Case<TestType> c(true);
  c.engine->attach(spec_of(perft::Method::kPerftR));
  const Sizes& s = c.sizes;
  // Attention, norms, base router and experts of layer 0 feed no trainable tensor.
  c.check(sequence(s.perft_r(false), s.attention_half(), s.router_half(), s.experts(false), s.perft_r(true), s.end()),
          {.experts = 1});
}

TEMPLATE_TEST_CASE("PERFT-R on Mixtral keeps q, k of its few heads and the renormalised weights", "", float,
                   perft::bf16) {
  Case<TestType> c(false);
  c.engine->attach(spec_of(perft::Method::kPerftR));
  const Sizes& s = c.sizes;
  c.check(sequence(s.perft_r(false), s.attention_half(), s.router_half(), s.experts(false), s.perft_r(true), s.end()),
          {.experts = 1});
}

TEMPLATE_TEST_CASE("PERFT-E on Mixtral keeps A x of every chosen expert, beside the base router's choice", "", float,
                   perft::bf16) {
  Case<TestType> c(false);
  c.engine->attach(spec_of(perft::Method::kPerftE));
  const Sizes& s = c.sizes;
  const auto adapter = [&](bool of_norm) {
    return Nodes{s.low_rank(s.K, true, of_norm), s.nothing("add"), s.nothing("add")};
  };
  c.check(sequence(adapter(false), s.attention_half(), s.router_half(), s.experts(false), adapter(true), s.end()),
          {.experts = 1});
}

TEMPLATE_TEST_CASE("LoRA on q and v of OLMoE keeps their inputs, and of the frozen k what nobody else keeps", "", float,
                   perft::bf16) {
  Case<TestType> c(true);
  perft::AdapterSpec spec = spec_of(perft::Method::kLora);
  spec.targets = {"q_proj", "v_proj"};
  c.engine->attach(spec);
  const Sizes& s = c.sizes;
  const RecordedNode add = s.nothing("add"), rope = s.nothing("rope"), linear = s.frozen_linear();
  const auto lora_of = [&](bool of_norm) {
    Nodes lora{s.low_rank(1, false, of_norm), add};
    if (sizeof(TestType) < kParam) lora.push_back(s.nothing("cast"));  // of the sum
    return lora;
  };
  const Nodes lora = lora_of(true);
  const Nodes first =
      sequence(lora_of(false), lora_of(false), s.norm(s.q_width), rope, s.attention(false, true), linear, add);
  const Nodes second = sequence(s.norm(s.D), linear, lora, linear, linear, lora, s.norm(s.q_width), rope,
                                s.norm(s.kv_width), rope, s.attention(false, false), linear, add);
  const Nodes experts = sequence(s.router_half(), s.experts(false), add);
  c.check(sequence(first, experts, second, experts, s.end()), {});
}

TEMPLATE_TEST_CASE("LoRA on all of an expert's matrices in OLMoE keeps A x of each", "", float, perft::bf16) {
  Case<TestType> c(true);
  perft::AdapterSpec spec = spec_of(perft::Method::kLora);
  spec.targets = {"gate_proj", "up_proj", "down_proj"};
  c.engine->attach(spec);
  const Sizes& s = c.sizes;
  const RecordedNode add = s.nothing("add");
  c.check(sequence(s.experts(true, 3), add, s.attention_half(), s.router_half(), s.experts(false, 3), add, s.end()),
          {});
}

TEMPLATE_TEST_CASE("LoRA on down alone keeps no input of gate and up unless they are formed again", "", float,
                   perft::bf16) {
  Case<TestType> c(true);
  perft::AdapterSpec spec = spec_of(perft::Method::kLora);
  spec.targets = {"down_proj"};
  c.engine->attach(spec);
  const Sizes& s = c.sizes;
  const Nodes adapted{s.experts(false, 1), s.nothing("add")};
  c.check(sequence(adapted, s.attention_half(), s.router_half(), adapted, s.end()), {.needs_input = 1});
}

TEMPLATE_TEST_CASE("full fine-tuning of OLMoE keeps the input of every matrix", "", float, perft::bf16) {
  Case<TestType> c(true);
  c.engine->train_everything();
  const Sizes& s = c.sizes;
  const RecordedNode add = s.nothing("add"), rope = s.nothing("rope");
  const RecordedNode in = s.trained_linear(s.D, true), out = s.trained_linear(s.q_width, false),
                     table{"embedding", s.T * kIndex};
  const Nodes attention =
      sequence(s.norm(s.D), in, in, in, s.norm(s.q_width), rope, s.norm(s.kv_width), rope, s.attention(false, false));
  const Nodes layer = sequence(attention, out, add, s.norm(s.D), in, s.routing(s.N, s.K), s.experts(false), add);
  c.check(sequence(table, layer, layer, s.end(true)), {.trained_head = true, .below = table.bytes});
}

// The memory an op takes while it runs, by the pool's count: attention linear in the row length, the loss far below
// the logits of all targets.

#include <catch2/catch.hpp>  // test cases
#include <memory>            // segments

#include "ops/support/harness.hpp"
#include "perft/core/pool.hpp"
#include "perft/ops/attention.hpp"
#include "perft/ops/cross_entropy.hpp"

using namespace harness;

namespace {

/// What run() had allocated at most, beyond what was there.
template <class Run>
double peak_of(Run run) {
  auto& pool = perft::MemoryPool::global();
  pool.reset_peak();
  const std::size_t before = pool.stats().live;
  run();
  return static_cast<double>(pool.stats().peak - before);
}

template <class C>
double attention_peak(std::int64_t row) {
  const perft::AttentionShape shape{8, 4, 8, 0};
  const auto q = tensor<C>(numbers(row * 64, 1), {row, 64}), d_o = q.clone();
  const auto k = tensor<C>(numbers(row * 32, 2), {row, 32}), v = tensor<C>(numbers(row * 32, 3), {row, 32});
  const auto length = static_cast<std::int32_t>(row);
  const auto segments =
      std::make_shared<const std::vector<perft::Segment>>(std::vector<perft::Segment>{{0, length, length}});
  return peak_of([&] {
    perft::Tape tape;
    perft::Recording recording(tape);
    const Leaf<C> q_leaf(tape, q), k_leaf(tape, k), v_leaf(tape, v);
    const auto o = perft::attention(q_leaf.variable, k_leaf.variable, v_leaf.variable, segments, shape);
    tape.add_gradient(o.edge(), d_o);
    tape.backward();
    CHECK(tape.take_gradient<C>(k_leaf.edge).defined());
  });
}

}  // namespace

TEMPLATE_TEST_CASE("attention's memory grows with the row's length, not with its square", "", float, perft::bf16) {
  const double half = attention_peak<TestType>(512), whole = attention_peak<TestType>(1024);
  CAPTURE(half, whole);
  CHECK(half > 0);
  CHECK(whole <= 2.1 * half);
  // One matrix of scores alone, in the type they are computed in, for all heads.
  CHECK(whole < 0.05 * 1024.0 * 1024.0 * 8.0 * sizeof(float));
}

TEMPLATE_TEST_CASE("the loss never holds the logits of all targets, with a frozen or a trained head", "", float,
                   perft::bf16) {
  using C = TestType;
  constexpr std::int64_t kVocabulary = 70001, kTargets = 1000, kWidth = 4;
  const auto h = tensor<C>(numbers(kTargets * kWidth, 1), {kTargets, kWidth});
  perft::ScoredTargets scored;
  for (std::int32_t i = 0; i < kTargets; ++i) {
    scored.rows.push_back(i);
    scored.targets.push_back(i * 61 % kVocabulary);
  }
  for (const bool trained : {false, true}) {
    perft::Weight<float> head("head", tensor<float>(numbers(kVocabulary * kWidth, 2), {kVocabulary, kWidth}));
    if (trained) prefill_gradient(head.make_trainable(), 0.0);
    const double peak = peak_of([&] {
      perft::Tape tape;
      perft::Recording recording(tape);
      const Leaf<C> leaf(tape, h);
      const auto loss = perft::cross_entropy(leaf.variable, head, scored, 1.0 / kTargets);
      tape.add_gradient(loss.edge(), perft::Tensor<float>::full({1}, 1.0F));
      tape.backward();
      CHECK(tape.take_gradient<C>(leaf.edge).defined());
    });
    const double logits = sizeof(float) * static_cast<double>(kVocabulary) * kTargets;  // 280 MB
    CAPTURE(trained, peak, logits);
    CHECK(peak > 0.05 * logits);  // a chunk
    CHECK(peak < 0.2 * logits);   // 32 MiB of it, an eighth in size classes, h and its gradient
  }
}

// The float part of moe_experts_backward_test.cpp: each compute type instantiates the whole MoE op.
#include <catch2/catch.hpp>  // test cases

#include "ops/support/moe_case.hpp"

using namespace harness;
using perft::HiddenPolicy;
using perft::ShapeError;
using perft::Tensor;

TEST_CASE("moe_experts: gradients at sizes around the blocks of the matrix product, float") {
  using C = float;
  // 16 hidden channels are one partial sum of a router weight's gradient: 1, just below, at and above it.
  for (const MoeSize& size : std::vector<MoeSize>{
           {0, 2, 4, 5, 7}, {1, 1, 2, 1, 1}, {5, 2, 4, 3, 15}, {5, 2, 3, 4, 16}, {5, 2, 3, 3, 17}, {7, 3, 4, 5, 33}}) {
    const auto expected = MoeCase<C>(size, 0, 0, 0, 0).exact();
    for (const unsigned trained : {0U, kAll}) {
      MoeCase<C> saved(size, trained, 0, 0, 0);
      check_moe(saved, expected, true, true, HiddenPolicy::kSave);
      MoeCase<C> again(size, trained, 0, 0, 0);
      check_moe(again, expected, true, true, HiddenPolicy::kRecompute);
    }
  }
}

TEST_CASE("moe_experts: an expert no token chose gets zeros, not nothing") {
  MoeCase<float> moe({6, 2, 4, 5, 7}, kAll, 0, 0, 0);
  for (auto& expert : moe.experts) {
    for (auto* w : {&expert.gate, &expert.up, &expert.down}) {
      w->trained()->clear_gradient();
    }
  }
  perft::Tape tape;
  perft::Recording recording(tape);
  const auto y = perft::moe_experts(perft::Variable<float>(moe.x), moe.weights, moe.plan, moe.experts, nullptr,
                                    HiddenPolicy::kRecompute);
  tape.add_gradient(y.edge(), moe.dy);
  tape.backward();
  CHECK(values(moe.experts[3].gate.trained()->gradient()) == Values(35, 0.0));
  CHECK(values(moe.experts[3].up.trained()->gradient()) == Values(35, 0.0));
  CHECK(values(moe.experts[3].down.trained()->gradient()) == Values(35, 0.0));
}

TEST_CASE(
    "moe_experts: the same gradients bit by bit for 1, 2 and 3 threads, saved or formed again, and for a row alone") {
  // The second size is for the loops that give a task thousands of (token, slot) pairs.
  const auto size = GENERATE(MoeSize{400, 2, 5, 67, 97}, MoeSize{9001, 2, 5, 7, 5});
  MoeCase<float> moe(size, kAll, kAll, kAll, 0.2);
  const auto run = [&](HiddenPolicy policy) {
    for (auto& expert : moe.experts) {
      for (auto* w : {&expert.gate, &expert.up, &expert.down}) {
        w->trained()->clear_gradient();
      }
    }
    for (auto& bank : moe.banks) {
      train_bank(*bank, true, true, 0.0);
    }
    perft::Tape tape;
    perft::Recording recording(tape);
    const Leaf<float> x(tape, moe.x), w(tape, moe.weights);
    const auto y = perft::moe_experts(x.variable, w.variable, moe.plan, moe.experts,
                                      std::shared_ptr<const perft::ExpertLora<float>>(moe.lora), policy);
    tape.add_gradient(y.edge(), moe.dy);
    tape.backward();
    Bits bits;
    bits.add(y.value()).add(tape.take_gradient<float>(x.edge)).add(tape.take_gradient<float>(w.edge));
    for (auto& expert : moe.experts) {
      for (auto* matrix : {&expert.gate, &expert.up, &expert.down}) {
        bits.add(matrix->trained()->gradient());
      }
    }
    for (auto& bank : moe.banks) {
      for (auto& expert : bank->experts) {
        bits.add(expert->a.gradient()).add(expert->b.gradient());
      }
    }
    return bits;
  };
  check_same_bits_for_any_threads([&] { return run(HiddenPolicy::kSave); });
  CHECK(run(HiddenPolicy::kRecompute) == run(HiddenPolicy::kSave));

  const auto backward = [&](const Tensor<float>& dy, const Tensor<float>& x, const Tensor<float>& w,
                            const Tensor<std::int32_t>& ids) {
    const auto plan = perft::make_routing_plan(ids, 5);
    return perft::moe_experts_backward<float>(dy, x, w, plan, moe.experts, nullptr, {}, {}, true, true);
  };
  const auto batch = backward(moe.dy, moe.x, moe.weights, moe.size.ids());
  for (const std::int64_t t : {0, 31, 69}) {
    const auto row = [&](const auto& v) { return v.slice(0, t, t + 1); };
    const auto alone = backward(row(moe.dy), row(moe.x), row(moe.weights), row(moe.size.ids()));
    CHECK(Bits().add(alone.dx).add(alone.dweights) == Bits().add(row(batch.dx)).add(row(batch.dweights)));
  }
}

TEST_CASE("moe_experts_backward: error texts") {
  const MoeCase<float> moe({4, 2, 3, 5, 7}, 0, 0, 0, 0);
  CHECK(error_text<ShapeError>([&] {
          perft::moe_experts_backward<float>(Tensor<float>::zeros({4, 6}), moe.x, moe.weights, *moe.plan, moe.experts,
                                             nullptr, {}, {}, true, true);
        }) == "moe_experts: dy is [4, 6], expected [4, 5]");
}

#include "perft/ops/moe_experts.hpp"

#include <catch2/catch.hpp>  // test cases

#include "ops/support/moe_case.hpp"

using namespace harness;
using perft::ShapeError;
using perft::Tensor;
using support::close;

TEST_CASE("moe_experts: y is that of the reference, with and without LoRA and dropout, float") {
  using C = float;  // the others: moe_experts_double_test.cpp, moe_experts_bf16_test.cpp
  // 600 columns: more than one block of the matrix product.
  for (const MoeSize& size : std::vector<MoeSize>{{2, 1, 2, 1, 600},
                                                  {2, 1, 2, 600, 1},
                                                  {0, 2, 4, 5, 7},
                                                  {1, 1, 2, 1, 1},
                                                  {6, 2, 4, 5, 7},
                                                  {23, 3, 6, 19, 33},
                                                  {9, 2, 3, 64, 16}}) {
    for (unsigned lora = 0; lora <= kAll; ++lora) {
      for (const double p : {0.0, 0.3}) {
        CAPTURE(size.tokens, size.width, size.inner, lora, p);
        const MoeCase<C> moe(size, 0, lora, 0, p);
        const auto out = perft::moe_experts_forward(moe.x, moe.weights, *moe.plan, moe.experts, moe.lora.get(),
                                                    size.tokens % 2 == 0);
        CHECK(close(values(out.y), moe.reference(), moe.forward_tolerance()));
        CHECK(out.hidden.defined() == (size.tokens % 2 == 0));
      }
    }
  }
}

TEST_CASE("moe_experts: nothing recorded keeps nothing") {
  const MoeCase<float> moe({6, 2, 4, 5, 7}, kAll, 0, 0, 0);
  const auto y = perft::moe_experts(perft::Variable<float>(moe.x), moe.weights, moe.plan, moe.experts, nullptr,
                                    perft::HiddenPolicy::kSave);
  CHECK_FALSE(y.needs_gradient());
}

TEST_CASE("moe_experts: the same bits for 1, 2 and 3 threads, for a row alone, and whether the hidden state is kept") {
  const MoeCase<float> moe({400, 2, 5, 67, 97}, 0, kAll, 0, 0.0);  // several tasks in every loop
  const auto run = [&](bool keep) {
    return perft::moe_experts_forward(moe.x, moe.weights, *moe.plan, moe.experts, moe.lora.get(), keep).y;
  };
  check_same_bits_for_any_threads([&] { return Bits().add(run(false)); });
  const auto batch = run(false);
  CHECK(Bits().add(run(true)) == Bits().add(batch));
  for (const std::int64_t t : {0, 31, 69}) {
    const auto row = [&](const auto& v) { return v.slice(0, t, t + 1); };
    const auto plan = perft::make_routing_plan(row(moe.size.ids()), 5);
    const auto alone =
        perft::moe_experts_forward(row(moe.x), row(moe.weights), plan, moe.experts, moe.lora.get(), false);
    CHECK(Bits().add(alone.y) == Bits().add(row(batch)));
  }
}

TEST_CASE("moe_experts: LoRA with B = 0 changes no bit") {
  MoeCase<float> moe({9, 2, 4, 19, 33}, 0, kAll, 0, 0.4);
  for (auto& bank : moe.banks) {
    for (auto& expert : bank->experts) {
      std::ranges::fill(expert->b.mutable_value().mutable_span(), 0.0F);
    }
  }
  const auto with = perft::moe_experts_forward(moe.x, moe.weights, *moe.plan, moe.experts, moe.lora.get(), false).y;
  const auto without = perft::moe_experts_forward<float>(moe.x, moe.weights, *moe.plan, moe.experts, nullptr, false).y;
  CHECK(Bits().add(with) == Bits().add(without));
}

TEST_CASE("moe_experts: error texts") {
  const MoeCase<float> moe({4, 2, 3, 5, 7}, 0, 0, 0, 0);
  const auto text = [&](const Tensor<float>& x, const Tensor<float>& weights,
                        const perft::ExpertTable<float>& experts) {
    return error_text<ShapeError>(
        [&] { perft::moe_experts_forward<float>(x, weights, *moe.plan, experts, nullptr, false); });
  };
  const auto zeros = [](const perft::Shape& shape) { return Tensor<float>::zeros(shape); };
  CHECK(text(moe.x, moe.weights, {}) == "moe_experts: the plan is for 3 experts, the table holds 0");
  const MoeCase<float> four({4, 2, 4, 5, 7}, 0, 0, 0, 0);
  CHECK(text(moe.x, moe.weights, four.experts) == "moe_experts: the plan is for 3 experts, the table holds 4");
  CHECK(text(zeros({4, 6}), moe.weights, moe.experts) == "moe_experts: x is [4, 6], expected contiguous [4, 5]");
  CHECK(text(zeros({3, 5}), moe.weights, moe.experts) == "moe_experts: x is [3, 5], expected contiguous [4, 5]");
  CHECK(text(zeros({5, 4}).transpose(0, 1), moe.weights, moe.experts) ==
        "moe_experts: x is [4, 5], expected contiguous [4, 5]");
  CHECK(text(moe.x, zeros({4, 3}), moe.experts) == "moe_experts: weights are [4, 3], expected [4, 2]");
}

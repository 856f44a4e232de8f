#include "perft/ops/moe_lora.hpp"

#include <catch2/catch.hpp>  // test cases

#include "ops/support/moe_case.hpp"

using namespace harness;
using perft::HiddenPolicy;
using support::close;

TEST_CASE("expert LoRA: any subset of gate, up, down, frozen or trained, beside frozen or trained experts") {
  const MoeSize size{5, 2, 3, 3, 4};
  const Threads one(1);  // thousands of tiny calls: waking workers would be most of the time
  for (unsigned on = 1; on <= kAll; ++on) {
    for (const double p : {0.0, 0.3}) {
      const auto expected = MoeCase<double>(size, 0, on, 0, p).exact();
      for (unsigned trained = 0; trained <= kAll; ++trained) {
        if ((trained & ~on) != 0) {
          continue;
        }
        for (unsigned rest = 0; rest < 32; ++rest) {  // x, weights, policy, and two of the experts' matrices
          const unsigned matrices = (rest & 8U) != 0    ? ((rest & 16U) != 0 ? kAll : kDown)
                                    : (rest & 16U) != 0 ? kUp
                                                        : 0U;
          CAPTURE(on, trained, matrices, p);
          MoeCase<double> moe(size, matrices, on, trained, p);
          check_moe(moe, expected, (rest & 1U) != 0, (rest & 2U) != 0,
                    (rest & 4U) != 0 ? HiddenPolicy::kSave : HiddenPolicy::kRecompute);
        }
      }
    }
  }
}

TEST_CASE("expert LoRA: A and B of each matrix trained apart") {
  const MoeSize size{5, 2, 3, 3, 4};
  const Threads one(1);
  const auto expected = MoeCase<double>(size, 0, kAll, 0, 0.3).exact();
  for (unsigned a = 0; a <= kAll; ++a) {
    for (unsigned b = 0; b <= kAll; ++b) {
      for (const HiddenPolicy policy : {HiddenPolicy::kSave, HiddenPolicy::kRecompute}) {
        CAPTURE(a, b);
        MoeCase<double> moe(size, 0, kAll, a, 0.3, b);
        check_moe(moe, expected, (a & 1U) != 0, (b & 1U) != 0, policy);
      }
    }
  }
}

TEST_CASE("expert LoRA: gradients at sizes around blocks and chunks") {
  using C = double;  // the others: moe_lora_float_test.cpp, moe_lora_bf16_test.cpp
  // 600 columns: more than one block of the matrix product.
  for (const MoeSize& size : std::vector<MoeSize>{{2, 1, 2, 1, 600},
                                                  {2, 1, 2, 600, 1},
                                                  {0, 2, 4, 5, 7},
                                                  {1, 1, 2, 1, 1},
                                                  {7, 2, 3, 5, 17},
                                                  {70, 1, 2, 3, 2},
                                                  {40, 2, 3, 2, 3}}) {
    for (const double p : {0.0, 0.3}) {
      const auto expected = MoeCase<C>(size, 0, kAll, 0, p).exact();
      MoeCase<C> moe(size, 0, kAll, kAll, p);
      check_moe(moe, expected, true, true, HiddenPolicy::kSave);
    }
  }
}

TEST_CASE("expert LoRA: a branch without a bank keeps and forms nothing") {
  const perft::ExpertLoraBranch<float> none;
  CHECK_FALSE(none.trainable());
  const auto plan = perft::make_routing_plan(int_tensor({0}, {1, 1}), 1);
  CHECK_FALSE(none.shrink(perft::Tensor<float>::zeros({1, 3}), plan, plan.tokens).defined());
  CHECK_FALSE(none.shrink_gradient(static_cast<const float*>(nullptr), 3, plan, plan.tokens).defined());
  CHECK(perft::ExpertLoraState<float>().bytes() == 0);
}

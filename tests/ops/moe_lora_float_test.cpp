// The float part of moe_lora_test.cpp: each compute type instantiates the whole MoE op.
#include <catch2/catch.hpp>  // test cases

#include "ops/support/moe_case.hpp"

using namespace harness;
using perft::HiddenPolicy;

TEST_CASE("expert LoRA: gradients at sizes around blocks and chunks, float") {
  using C = float;
  for (const MoeSize& size :
       std::vector<MoeSize>{{0, 2, 4, 5, 7}, {1, 1, 2, 1, 1}, {7, 2, 3, 5, 17}, {70, 1, 2, 3, 2}, {40, 2, 3, 2, 3}}) {
    for (const double p : {0.0, 0.3}) {
      const auto expected = MoeCase<C>(size, 0, kAll, 0, p).exact();
      MoeCase<C> moe(size, 0, kAll, kAll, p);
      check_moe(moe, expected, true, true, HiddenPolicy::kSave);
    }
  }
}

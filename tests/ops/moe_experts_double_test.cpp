// The double part of moe_experts_test.cpp: each compute type instantiates the whole MoE op.
#include <catch2/catch.hpp>  // test cases

#include "ops/support/moe_case.hpp"

using namespace harness;
using support::close;

TEST_CASE("moe_experts: y is that of the reference, with and without LoRA and dropout, double") {
  using C = double;
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

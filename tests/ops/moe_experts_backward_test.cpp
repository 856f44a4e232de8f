#include "perft/ops/moe_experts_backward.hpp"

#include <catch2/catch.hpp>  // test cases

#include "ops/support/moe_case.hpp"

using namespace harness;
using perft::HiddenPolicy;

TEST_CASE(
    "moe_experts: every subset of x, weights, gate, up, down that wants a gradient gets it, saved or formed again") {
  const MoeSize size{6, 2, 4, 5, 7};
  const auto expected = MoeCase<double>(size, 0, 0, 0, 0).exact();
  for (unsigned trained = 0; trained <= kAll; ++trained) {
    for (unsigned edges = 0; edges < 4; ++edges) {
      for (const HiddenPolicy policy : {HiddenPolicy::kSave, HiddenPolicy::kRecompute}) {
        CAPTURE(trained);
        MoeCase<double> moe(size, trained, 0, 0, 0);
        check_moe(moe, expected, (edges & 1U) != 0, (edges & 2U) != 0, policy);
      }
    }
  }
}

TEST_CASE("moe_experts: gradients at sizes around the blocks of the matrix product, double") {
  using C = double;  // the others: moe_experts_backward_float_test.cpp, moe_experts_backward_bf16_test.cpp
  // 16 hidden channels are one partial sum of a router weight's gradient: 1, just below, at and above it.
  // 600 columns: more than one block of the matrix product.
  for (const MoeSize& size : std::vector<MoeSize>{{2, 1, 2, 1, 600},
                                                  {2, 1, 2, 600, 1},
                                                  {0, 2, 4, 5, 7},
                                                  {1, 1, 2, 1, 1},
                                                  {5, 2, 4, 3, 15},
                                                  {5, 2, 3, 4, 16},
                                                  {5, 2, 3, 3, 17},
                                                  {7, 3, 4, 5, 33}}) {
    const auto expected = MoeCase<C>(size, 0, 0, 0, 0).exact();
    for (const unsigned trained : {0U, kAll}) {
      MoeCase<C> saved(size, trained, 0, 0, 0);
      check_moe(saved, expected, true, true, HiddenPolicy::kSave);
      MoeCase<C> again(size, trained, 0, 0, 0);
      check_moe(again, expected, true, true, HiddenPolicy::kRecompute);
    }
  }
}

TEST_CASE("moe_experts: a hidden state somebody else holds is not written to") {
  MoeCase<double> moe({6, 2, 4, 5, 7}, 0, 0, 0, 0);
  const auto out = perft::moe_experts_forward<double>(moe.x, moe.weights, *moe.plan, moe.experts, nullptr, true);
  const auto before = Bits().add(out.hidden);
  const auto run = [&] {
    const auto g = perft::moe_experts_backward<double>(moe.dy, moe.x, moe.weights, *moe.plan, moe.experts, nullptr, {},
                                                       out.hidden, true, true);
    return Bits().add(g.dx).add(g.dweights);
  };
  const auto first = run();
  CHECK(run() == first);
  CHECK(Bits().add(out.hidden) == before);
}

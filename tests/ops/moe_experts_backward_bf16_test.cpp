// The bf16 part of moe_experts_backward_test.cpp: each compute type instantiates the whole MoE op.
#include <catch2/catch.hpp>  // test cases

#include "ops/support/moe_case.hpp"

using namespace harness;
using perft::bf16;
using perft::HiddenPolicy;

TEST_CASE("moe_experts: gradients at sizes around the blocks of the matrix product, bf16") {
  using C = bf16;
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

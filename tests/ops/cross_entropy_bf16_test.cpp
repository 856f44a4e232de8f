// The bf16 part of cross_entropy_test.cpp: each compute type instantiates the matrix product anew.
#include <catch2/catch.hpp>  // test cases

#include "ops/support/cross_entropy_case.hpp"

using namespace harness;
using perft::bf16;

TEST_CASE("cross_entropy: loss and gradients through the tape are those of the reference, bf16") {
  check_small_cases<bf16>();
}

TEST_CASE("cross_entropy: the same bits for 1, 2 and 3 threads") {
  const std::int64_t tokens = 40, d = 521, vocabulary = 517;
  const auto h = tensor<bf16>(numbers(tokens * d, 1), {tokens, d});
  perft::ScoredTargets scored;
  for (std::int32_t i = 0; i < 90; ++i) {
    scored.rows.push_back(i * 7 % 40);
    scored.targets.push_back(i * 31 % 517);
  }
  perft::Weight<float> head("lm_head", tensor<float>(numbers(vocabulary * d, 2), {vocabulary, d}));
  for (const bool trained : {false, true}) {
    if (trained) {
      head.make_trainable();
    }
    check_same_bits_for_any_threads([&] {
      if (trained) {
        head.trained()->clear_gradient();
      }
      perft::Tape tape;
      perft::Recording recording(tape);
      const Leaf<bf16> input(tape, h);
      const auto loss = perft::cross_entropy(input.variable, head, scored, 0.01);
      tape.add_gradient(loss.edge(), perft::Tensor<float>::full({1}, 1.0F));
      tape.backward();
      Bits bits;
      bits.add(loss.value()).add(tape.take_gradient<bf16>(input.edge));
      return trained ? bits.add(head.trained()->gradient()) : bits;
    });
  }
}

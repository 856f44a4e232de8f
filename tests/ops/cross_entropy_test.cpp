#include "perft/ops/cross_entropy.hpp"

#include <catch2/catch.hpp>  // test cases

#include "ops/support/cross_entropy_case.hpp"
#include "perft/ops/embedding.hpp"
#include "reference/embedding.hpp"

using namespace harness;
using perft::Recording;
using perft::ScoredTargets;
using perft::ShapeError;
using perft::Tape;
using perft::Tensor;
using perft::ValueError;
using perft::Weight;
using support::close;

TEMPLATE_TEST_CASE("cross_entropy: loss and gradients through the tape are those of the reference", "", double, float) {
  check_small_cases<TestType>();  // bf16: cross_entropy_bf16_test.cpp
}

TEMPLATE_TEST_CASE("cross_entropy: several chunks give what one pass gives", "", double, float) {
  using C = TestType;
  const std::int64_t vocabulary = 70001, tokens = 5;
  // Chunks of 64 rows in double and 119 in float: three and two.
  const std::int64_t chunk = perft::cross_entropy_chunk(vocabulary, sizeof(C));
  ScoredTargets scored;
  for (std::int32_t i = 0; i < 150; ++i) {
    scored.rows.push_back(i * i % 5);
    scored.targets.push_back(i * 461 % 70001);
  }
  REQUIRE(chunk < 150);
  const auto h = tensor<C>(numbers(tokens * 2, 1, 2.0), {tokens, 2});
  Weight<C> head("lm_head", tensor<C>(numbers(vocabulary * 2, 2, 2.0), {vocabulary, 2}));
  const Analytic expected(values(h), values(head.parameter()->value()), 2, scored, 1.0 / 150);
  check_against(expected, h, head, scored, 1.0 / 150, 1.0F);
  prefill_gradient(head.make_trainable(), 0.5);
  check_against(expected, h, head, scored, 1.0 / 150, 2.0F);
}

TEST_CASE("cross_entropy: a chunk is 32 MiB of logits, at least 64 rows") {
  CHECK(perft::cross_entropy_chunk(32000, 4) == 262);
  CHECK(perft::cross_entropy_chunk(32000, 8) == 131);
  CHECK(perft::cross_entropy_chunk(1 << 20, 4) == 64);
}

TEST_CASE("cross_entropy: a table tied to the head gets both gradients") {
  const std::vector<std::int32_t> ids{3, 1, 3};
  const ScoredTargets scored{{0, 1, 2}, {1, 3, 0}};
  Weight<double> table("embed", tensor<double>(numbers(5 * 4, 1), {5, 4}));
  table.make_trainable();
  Tape tape;
  Recording recording(tape);
  const auto loss = perft::cross_entropy(perft::embedding<double>(ids, table), table, scored, 0.5);
  tape.add_gradient(loss.edge(), Tensor<double>::full({1}, 1.0));
  tape.backward();
  const auto expected = exact_gradients(
      [&](const std::vector<Complexes>& z) {
        const auto h = reference::embedding(z[0], {ids.begin(), ids.end()}, 4);
        return Complexes{loss_reference(h, z[0], 4, scored, 0.5)};
      },
      {values(table.parameter()->value())}, {1.0});
  CHECK(close(values(table.trained()->gradient()), expected[0], {.rel_to_max = 1e-12}));
}

TEST_CASE("cross_entropy: a trained head behind a constant; nothing wanted, nothing recorded") {
  const auto h = tensor<float>(numbers(6, 1), {2, 3});
  const ScoredTargets scored{{0, 1}, {1, 0}};
  Weight<float> head("lm_head", tensor<float>(numbers(6, 2), {2, 3}));
  Tape tape;
  Recording recording(tape);
  CHECK_FALSE(perft::cross_entropy(perft::Variable<float>(h), head, scored, 1.0).needs_gradient());
  CHECK(tape.size() == 0);
  head.make_trainable();
  const auto dhead = [&](const perft::Variable<float>& input) {
    head.trained()->clear_gradient();
    const auto loss = perft::cross_entropy(input, head, scored, 1.0);
    tape.add_gradient(loss.edge(), Tensor<float>::full({1}, 1.0F));
    tape.backward();
    return values(head.trained()->gradient());
  };
  const Leaf<float> input(tape, h);
  const Values expected = dhead(input.variable);
  CHECK(tape.take_gradient<float>(input.edge).defined());
  CHECK(dhead(h) == expected);
}

TEST_CASE("cross_entropy: logits of thousands give a finite loss") {
  const auto h = tensor<float>({1000, 1000}, {2, 1});
  Weight<float> head("lm_head", tensor<float>({5, -5}, {2, 1}));
  CHECK(perft::cross_entropy_forward(h, head, {{0, 1}, {0, 1}}, 1.0, false).loss == 10000.0);
}

TEST_CASE("cross_entropy: error texts") {
  const Weight<float> head("lm_head", Tensor<float>::zeros({4, 3}));
  const auto h = Tensor<float>::zeros({2, 3});
  const auto shape = [&](const Tensor<float>& x, const ScoredTargets& scored) {
    return error_text<ShapeError>([&] { perft::cross_entropy_forward(x, head, scored, 1.0, false); });
  };
  const auto value = [&](const ScoredTargets& scored) {
    return error_text<ValueError>([&] { perft::cross_entropy_forward(h, head, scored, 1.0, false); });
  };
  CHECK(shape(Tensor<float>::zeros({2, 4}), {}) == "cross_entropy: h is [2, 4], expected contiguous [T, 3]");
  CHECK(shape(Tensor<float>::zeros({3, 2}).transpose(0, 1), {}) ==
        "cross_entropy: h is [2, 3], expected contiguous [T, 3]");
  CHECK(shape(Tensor<float>::zeros({3}), {}) == "cross_entropy: h is [3], expected contiguous [T, 3]");
  CHECK(shape(h, {{0}, {1, 2}}) == "cross_entropy: 1 rows for 2 targets");
  const std::string expected = "), expected rows below 2 and ids below 4";
  CHECK(value({{0, 2}, {0, 1}}) == "cross_entropy: target 1 is (row 2, id 1" + expected);
  CHECK(value({{-1}, {1}}) == "cross_entropy: target 0 is (row -1, id 1" + expected);
  CHECK(value({{1}, {4}}) == "cross_entropy: target 0 is (row 1, id 4" + expected);
  CHECK(value({{1}, {-100}}) == "cross_entropy: target 0 is (row 1, id -100" + expected);
}

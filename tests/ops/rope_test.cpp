#include "perft/ops/rope.hpp"

#include <catch2/catch.hpp>  // test cases

#include "ops/support/harness.hpp"
#include "reference/rope.hpp"

using namespace harness;
using perft::bf16;
using perft::Param;
using perft::Recording;
using perft::ShapeError;
using perft::Tape;
using perft::Tensor;
using support::close;
using Positions = std::vector<std::int32_t>;

TEMPLATE_TEST_CASE("rope: value and gradient through the tape are those of the reference", "", double, float, bf16) {
  using C = TestType;
  using P = Param<C>;
  for (const auto& [heads, d] : std::vector<std::pair<std::size_t, std::size_t>>{{1, 2}, {3, 6}, {2, 34}}) {
    for (const Positions& positions : {Positions{}, Positions{0}, Positions{7, 0, 3, 3, 100}}) {
      CAPTURE(heads, d, positions.size());
      const auto tokens = static_cast<std::int64_t>(positions.size());
      const auto width = static_cast<std::int64_t>(heads * d);
      const auto x = tensor<C>(numbers(tokens * width, 1), {tokens, width});
      const auto dy = tensor<C>(numbers(tokens * width, 2), {tokens, width});
      const auto table = perft::rope_table<P>(positions, static_cast<std::int64_t>(d), 10000.0);
      const std::vector<double> at(positions.begin(), positions.end());
      const auto rotate = [&](const auto& v) { return reference::rope(v, at, heads, d, 10000.0); };
      Tape tape;
      Recording recording(tape);
      const Leaf<C> input(tape, x);
      const auto y = perft::rope(input.variable, table);
      CHECK(tape.saved_bytes() == 0);
      CHECK(tape.node(0).name() == "rope");
      // In float the angle itself is rounded: an angle up to 100 is off by up to 2 · 100 · 2^-24.
      auto allowed = tolerance<C>(2, 1);
      allowed.abs = std::same_as<C, double> ? 1e-13 : 2 * 100 * 0x1p-24;
      CHECK(close(values(y.value()), rotate(values(x)), allowed));
      tape.add_gradient(y.edge(), dy);
      tape.backward();
      const auto expected =
          exact_gradients([&](const std::vector<Complexes>& in) { return rotate(in[0]); }, {values(x)}, values(dy));
      CHECK(close(values(tape.take_gradient<C>(input.edge)), expected[0], allowed));
    }
  }
}

TEST_CASE("rope: fp32 tables form their angles in fp32, as transformers does") {
  const auto table = perft::rope_table<float>(Positions{4095}, 8, 10000.0);
  const float frequency = 1.0F / static_cast<float>(std::pow(10000.0, 0.75));
  const float angle = 4095.0F * frequency;
  CHECK(table.cosine.data()[3] == static_cast<float>(std::cos(static_cast<double>(angle))));
  CHECK(table.sine.data()[3] == static_cast<float>(std::sin(static_cast<double>(angle))));
}

TEST_CASE("rope: frozen x records nothing") {
  const auto table = perft::rope_table<float>(Positions{1}, 2, 100.0);
  Tape tape;
  Recording recording(tape);
  CHECK_FALSE(perft::rope(perft::Variable<float>(Tensor<float>::zeros({1, 2})), table).needs_gradient());
  CHECK(tape.size() == 0);
}

TEST_CASE("rope: the same bits for 1, 2 and 3 threads, and for a row alone") {
  const std::int64_t tokens = 1100, width = 4 * 64;
  Positions positions;
  for (std::int32_t t = 0; t < 1100; ++t) {
    positions.push_back(t % 37);
  }
  const auto x = tensor<float>(numbers(tokens * width, 1), {tokens, width});
  const auto table = perft::rope_table<float>(positions, 64, 10000.0);
  check_same_bits_for_any_threads([&] {
    const auto made = perft::rope_table<float>(positions, 64, 10000.0);
    return Bits()
        .add(made.cosine)
        .add(made.sine)
        .add(perft::rope_forward(x, made))
        .add(perft::rope_forward(x, made, -1.0F));
  });
  const auto alone = perft::rope_forward(x.slice(0, 150, 151), perft::rope_table<float>(Positions{150 % 37}, 64, 1e4));
  CHECK(Bits().add(alone) == Bits().add(perft::rope_forward(x, table).slice(0, 150, 151)));
}

TEST_CASE("rope: error texts") {
  CHECK(error_text<ShapeError>([] { perft::rope_table<float>(Positions{0}, 5, 10.0); }) ==
        "rope: head dimension 5, expected an even number");
  CHECK(error_text<ShapeError>([] { perft::rope_table<float>(Positions{0}, 0, 10.0); }) ==
        "rope: head dimension 0, expected an even number");
  const auto table = perft::rope_table<float>(Positions{0, 1}, 4, 10.0);
  const auto text = [&](const Tensor<float>& x) {
    return error_text<ShapeError>([&] { perft::rope_forward(x, table); });
  };
  CHECK(text(Tensor<float>::zeros({2, 6})) == "rope: x is [2, 6], expected contiguous [2, multiple of 4]");
  CHECK(text(Tensor<float>::zeros({3, 4})) == "rope: x is [3, 4], expected contiguous [2, multiple of 4]");
  CHECK(text(Tensor<float>::zeros({8})) == "rope: x is [8], expected contiguous [2, multiple of 4]");
  CHECK(text(Tensor<float>::zeros({4, 2}).transpose(0, 1)) ==
        "rope: x is [2, 4], expected contiguous [2, multiple of 4]");
}

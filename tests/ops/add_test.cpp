#include "perft/ops/add.hpp"

#include <catch2/catch.hpp>  // test cases

#include "ops/support/harness.hpp"

using namespace harness;
using perft::bf16;
using perft::Param;
using perft::Recording;
using perft::ShapeError;
using perft::Tape;
using perft::Tensor;
using perft::Variable;
using support::close;

namespace {

template <class C, class B>
void check_add() {
  for (const auto& shape : std::vector<perft::Shape>{{0, 3}, {1, 1}, {5, 7}}) {
    const auto x = tensor<C>(numbers(shape.numel(), 1), shape);
    const auto y = tensor<B>(numbers(shape.numel(), 2), shape);
    const auto dz = tensor<C>(numbers(shape.numel(), 3), shape);
    Tape tape;
    Recording recording(tape);
    const Leaf<C> a(tape, x);
    const Leaf<B> b(tape, y);
    const auto z = perft::add(a.variable, b.variable);
    Values expected = as_operand<C>(values(y));  // rounded first, then added
    for (std::size_t i = 0; i < expected.size(); ++i) {
      expected[i] += values(x)[i];
    }
    CHECK(close(values(z.value()), as_operand<C>(expected), {.allow_empty = true}));
    CHECK(tape.saved_bytes() == 0);
    CHECK(tape.node(0).name() == "add");
    tape.add_gradient(z.edge(), dz);
    tape.backward();
    CHECK(values(tape.take_gradient<C>(a.edge)) == values(dz));
    CHECK(values(tape.take_gradient<B>(b.edge)) == values(dz));
  }
}

}  // namespace

TEST_CASE("add: the branch is rounded, then added, then rounded; both inputs get dz") {
  check_add<double, double>();
  check_add<float, float>();
  check_add<bf16, bf16>();
  check_add<bf16, float>();
}

TEST_CASE("add: a branch in fp32 is rounded once before it meets the residual") {
  // 1 + (2^-8 + 2^-9): added in fp32 it would round up to 1 + 2^-7; rounded to bf16 first nothing changes, the sum is
  // 1 + 3 · 2^-9, which rounds to 1 + 2^-7 as well; but 2^-8 + 2^-17 rounds to 2^-8, and 1 + 2^-8 is a tie to even.
  const auto x = tensor<bf16>({1.0}, {1, 1});
  const auto y = tensor<float>({0x1p-8 + 0x1p-17}, {1, 1});
  CHECK(values(perft::add_forward(x, y)) == Values{1.0});
}

TEST_CASE("add: a variable added to itself gets twice the gradient, and the seed is not written to") {
  const auto seed = tensor<float>({1, 2, 3}, {1, 3});
  Tape tape;
  Recording recording(tape);
  const Leaf<float> x(tape, seed);
  const auto z = perft::add(x.variable, x.variable);
  tape.add_gradient(z.edge(), seed);
  tape.backward();
  CHECK(values(tape.take_gradient<float>(x.edge)) == Values{2, 4, 6});
  CHECK(values(seed) == Values{1, 2, 3});
}

TEST_CASE("add: the one dz behind both inputs stays whole when one of them gets more") {
  // z = x + y, u = z + x: dx = 2 du, dy = du. x's second gradient must not be added into the tensor y also holds.
  const auto du = tensor<double>({1, 10}, {1, 2});
  Tape tape;
  Recording recording(tape);
  const Leaf<double> x(tape, du), y(tape, du);
  const auto z = perft::add(x.variable, y.variable);
  const auto u = perft::add(z, x.variable);
  tape.add_gradient(u.edge(), du);
  tape.backward();
  CHECK(values(tape.take_gradient<double>(x.edge)) == Values{2, 20});
  CHECK(values(tape.take_gradient<double>(y.edge)) == Values{1, 10});
  CHECK(values(du) == Values{1, 10});
}

TEST_CASE("add: only the inputs that want one get a gradient") {
  const auto x = tensor<float>({1, 2}, {1, 2});
  Tape tape;
  Recording recording(tape);
  CHECK_FALSE(perft::add(Variable<float>(x), Variable<float>(x)).needs_gradient());
  CHECK(tape.size() == 0);
  const Leaf<float> y(tape, x);
  const auto z = perft::add(Variable<float>(x), y.variable);
  tape.add_gradient(z.edge(), x);
  tape.backward();
  CHECK(values(tape.take_gradient<float>(y.edge)) == Values{1, 2});
}

TEST_CASE("cast: rounds or widens the value, and the gradient back") {
  const auto x = tensor<float>({1 + 0x1p-9, -3}, {1, 2});
  Tape tape;
  Recording recording(tape);
  const Leaf<float> input(tape, x);
  const auto y = perft::cast<bf16>(input.variable);
  CHECK(values(y.value()) == Values{1, -3});
  CHECK(tape.saved_bytes() == 0);
  CHECK(tape.node(0).name() == "cast");
  tape.add_gradient(y.edge(), tensor<bf16>({0.5, 0.25}, {1, 2}));
  tape.backward();
  CHECK(values(tape.take_gradient<float>(input.edge)) == Values{0.5, 0.25});
}

TEST_CASE("cast: to its own type a variable stays itself") {
  Tape tape;
  Recording recording(tape);
  const Leaf<float> input(tape, tensor<float>({1}, {1}));
  CHECK(perft::cast<float>(input.variable).value().data() == input.variable.value().data());
  CHECK(tape.size() == 0);
}

TEST_CASE("add: the same bits for 1, 2 and 3 threads") {
  const auto x = tensor<bf16>(numbers(50001, 1), {1, 50001});
  const auto y = tensor<float>(numbers(50001, 2), {1, 50001});
  check_same_bits_for_any_threads([&] {
    return Bits().add(perft::add_forward(x, y)).add(perft::detail::cast<bf16>(y)).add(perft::detail::cast<float>(x));
  });
}

TEST_CASE("add: error texts") {
  const auto x = Tensor<float>::zeros({2, 3});
  CHECK(error_text<ShapeError>([&] {
          perft::add_forward(x, Tensor<float>::zeros({3, 2}));
        }) == "add: y is [3, 2], expected [2, 3]");
  CHECK(error_text<ShapeError>([&] {
          perft::add_forward(x, Tensor<float>::zeros({3, 2}).transpose(0, 1));
        }) == "tensor: span() of a strided view of shape [2, 3]; clone() it first");
}

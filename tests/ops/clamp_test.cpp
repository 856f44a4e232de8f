#include "perft/ops/clamp.hpp"

#include <catch2/catch.hpp>  // test cases

#include "ops/support/harness.hpp"
#include "reference/attention.hpp"

using namespace harness;
using perft::bf16;
using perft::Param;
using perft::Recording;
using perft::ShapeError;
using perft::Tape;
using perft::Tensor;
using perft::Variable;
using support::close;

TEMPLATE_TEST_CASE("clamp: value and gradient through the tape are those of the reference", "", double, float, bf16) {
  using C = TestType;
  for (const auto& shape : std::vector<perft::Shape>{{0, 3}, {1}, {3, 7}, {2, 5, 3}}) {
    const auto x = tensor<C>(numbers(shape.numel(), 1, 4.0), shape);
    const auto dy = tensor<C>(numbers(shape.numel(), 2), shape);
    Tape tape;
    Recording recording(tape);
    const Leaf<C> input(tape, x);
    const auto y = perft::clamp(input.variable, 1.5);
    CHECK(close(values(y.value()), reference::clip(values(x), 1.5), {.allow_empty = true}));
    CHECK(tape.saved_bytes() == x.bytes());
    CHECK(tape.node(0).name() == "clamp");
    tape.add_gradient(y.edge(), dy);
    tape.backward();
    const auto expected = exact_gradients([](const std::vector<Complexes>& in) { return reference::clip(in[0], 1.5); },
                                          {values(x)}, values(dy));
    CHECK(close(values(tape.take_gradient<C>(input.edge)), expected[0], {.rel_to_max = 1e-15, .allow_empty = true}));
  }
}

TEST_CASE("clamp: at the limit itself the gradient passes, and a limit is rounded to the compute type first") {
  const auto x = tensor<bf16>({-1.5, 1.5, 1.5078125, -1.5078125}, {1, 4});  // 1.5078125 is the next bf16
  for (const double limit : {1.5, 1.501}) {                                 // 1.501 rounds to 1.5
    Tape tape;
    Recording recording(tape);
    const Leaf<bf16> input(tape, x);
    const auto y = perft::clamp(input.variable, limit);
    CHECK(values(y.value()) == Values{-1.5, 1.5, 1.5, -1.5});
    tape.add_gradient(y.edge(), tensor<bf16>({1, 1, 1, 1}, {1, 4}));
    tape.backward();
    CHECK(values(tape.take_gradient<bf16>(input.edge)) == Values{1, 1, 0, 0});
  }
}

TEST_CASE("clamp: a limit that rounds up lets the rounded limit pass, forward and backward") {
  Tape tape;
  Recording recording(tape);
  const Leaf<bf16> input(tape, tensor<bf16>({1.5078125, -1.5078125, 1.515625}, {1, 3}));
  const auto y = perft::clamp(input.variable, 1.505);
  CHECK(values(y.value()) == Values{1.5078125, -1.5078125, 1.5078125});
  tape.add_gradient(y.edge(), tensor<bf16>({1, 1, 1}, {1, 3}));
  tape.backward();
  CHECK(values(tape.take_gradient<bf16>(input.edge)) == Values{1, 1, 0});
}

TEST_CASE("clamp: frozen x records nothing; a strided x is refused") {
  Tape tape;
  Recording recording(tape);
  CHECK_FALSE(perft::clamp(Variable<float>(Tensor<float>::zeros({2, 3})), 1.0).needs_gradient());
  CHECK(tape.size() == 0);
  CHECK(error_text<ShapeError>([] {
          perft::clamp_forward(Tensor<float>::zeros({2, 3}).transpose(0, 1), 1.0);
        }) == "tensor: span() of a strided view of shape [3, 2]; clone() it first");
  CHECK(error_text<ShapeError>([] {
          perft::clamp_backward(Tensor<float>::zeros({2, 2}), Tensor<float>::zeros({2, 3}), 1.0);
        }) == "clamp: dy is [2, 2], expected [2, 3]");
}

TEST_CASE("clamp: the same bits for 1, 2 and 3 threads") {
  const auto x = tensor<float>(numbers(50001, 1, 3.0), {50001});
  check_same_bits_for_any_threads([&] {
    Tape tape;
    Recording recording(tape);
    const Leaf<float> input(tape, x);
    const auto y = perft::clamp(input.variable, 1.0);
    tape.add_gradient(y.edge(), x);
    tape.backward();
    return Bits().add(y.value()).add(tape.take_gradient<float>(input.edge));
  });
}

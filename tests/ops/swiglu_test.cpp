#include "perft/ops/swiglu.hpp"

#include <catch2/catch.hpp>  // test cases

#include "ops/support/harness.hpp"
#include "reference/swiglu.hpp"

using namespace harness;
using perft::bf16;
using perft::Param;
using perft::Recording;
using perft::ShapeError;
using perft::Tape;
using perft::Tensor;
using perft::Variable;
using support::close;

TEMPLATE_TEST_CASE("swiglu: value and gradients through the tape are those of the reference", "", double, float, bf16) {
  using C = TestType;
  for (const auto& shape : std::vector<perft::Shape>{{0, 3}, {1, 1}, {3, 7}, {13, 17}}) {
    const auto gate = tensor<C>(numbers(shape.numel(), 1, 6.0), shape);
    const auto up = tensor<C>(numbers(shape.numel(), 2), shape);
    const auto da = tensor<C>(numbers(shape.numel(), 3), shape);
    Tape tape;
    Recording recording(tape);
    const Leaf<C> g(tape, gate), u(tape, up);
    const auto a = perft::swiglu(g.variable, u.variable);
    CHECK(close(values(a.value()), reference::swiglu(values(gate), values(up)), tolerance<C>(4, 1)));
    CHECK(tape.saved_bytes() == gate.bytes() + up.bytes());
    CHECK(tape.node(0).name() == "swiglu");
    tape.add_gradient(a.edge(), da);
    tape.backward();
    const auto expected =
        exact_gradients([](const std::vector<Complexes>& in) { return reference::swiglu(in[0], in[1]); },
                        {values(gate), values(up)}, values(da));
    CHECK(close(values(tape.take_gradient<C>(g.edge)), expected[0], tolerance<C>(8, 1)));
    CHECK(close(values(tape.take_gradient<C>(u.edge)), expected[1], tolerance<C>(4, 1)));
  }
}

TEST_CASE("swiglu: far out it saturates without NaN") {
  const auto gate = tensor<float>({-200, 200, -90, 0}, {1, 4});
  const auto one = tensor<float>({1, 1, 1, 1}, {1, 4});
  CHECK(close(values(perft::swiglu_forward(gate, one)), {0, 200, 0, 0}, {.abs = 1e-30}));
  const auto gradients = perft::swiglu_backward(one, gate, one);
  CHECK(close(values(gradients.dgate), {0, 1, 0, 0.5}, {.abs = 1e-30}));
  CHECK(close(values(gradients.dup), {0, 200, 0, 0}, {.abs = 1e-30}));
}

TEST_CASE("swiglu: only the inputs that want one get a gradient; frozen inputs record nothing") {
  const auto x = tensor<float>(numbers(6, 1), {2, 3});
  Tape tape;
  Recording recording(tape);
  CHECK_FALSE(perft::swiglu(Variable<float>(x), Variable<float>(x)).needs_gradient());
  CHECK(tape.size() == 0);
  const auto other = tensor<float>(numbers(6, 2), {2, 3});
  const auto both = perft::swiglu_backward(x, x, other);
  for (const bool of_gate : {true, false}) {
    const Leaf<float> wanted(tape, of_gate ? x : other);
    const auto a = of_gate ? perft::swiglu(wanted.variable, Variable<float>(other))
                           : perft::swiglu(Variable<float>(x), wanted.variable);
    tape.add_gradient(a.edge(), x);
    tape.backward();
    CHECK(values(tape.take_gradient<float>(wanted.edge)) == values(of_gate ? both.dgate : both.dup));
  }
}

TEST_CASE("swiglu: the same bits for 1, 2 and 3 threads, and for a row alone") {
  const auto gate = tensor<float>(numbers(150 * 257, 1), {150, 257});
  const auto up = tensor<float>(numbers(150 * 257, 2), {150, 257});
  check_same_bits_for_any_threads([&] {
    const auto gradients = perft::swiglu_backward(up, gate, up);
    return Bits().add(perft::swiglu_forward(gate, up)).add(gradients.dgate).add(gradients.dup);
  });
  CHECK(Bits().add(perft::swiglu_forward(gate.slice(0, 70, 71), up.slice(0, 70, 71))) ==
        Bits().add(perft::swiglu_forward(gate, up).slice(0, 70, 71)));
}

TEST_CASE("swiglu: error texts") {
  const auto text = [](const Tensor<float>& gate, const Tensor<float>& up) {
    return error_text<ShapeError>([&] { perft::swiglu_forward(gate, up); });
  };
  const auto x = Tensor<float>::zeros({2, 3});
  CHECK(text(x, Tensor<float>::zeros({3, 2})) ==
        "swiglu: up is [3, 2], expected gate's [2, 3], both contiguous [T, F]");
  CHECK(text(Tensor<float>::zeros({6}), Tensor<float>::zeros({6})) ==
        "swiglu: up is [6], expected gate's [6], both contiguous [T, F]");
  CHECK(text(Tensor<float>::zeros({3, 2}).transpose(0, 1), x) ==
        "swiglu: up is [2, 3], expected gate's [2, 3], both contiguous [T, F]");
}

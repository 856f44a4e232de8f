// What a second device takes: memory, overloads of the forward and backward functions it has, and nothing else. The
// differentiable functions and their nodes are the ones that run on Cpu.

#include <catch2/catch.hpp>

#include "ops/support/harness.hpp"
#include "perft/ops/dropout.hpp"
#include "support/offset_device.hpp"

namespace {

using namespace harness;
using perft::bf16;
using perft::Cpu;
using perft::Param;
using perft::Tape;
using perft::Tensor;

template <class Device, class T>
Tensor<T, Device> on(const Tensor<T>& x) {
  if constexpr (std::is_same_v<Device, Cpu>) {
    return x.clone();
  } else {
    return toy::device(x);
  }
}

template <class T>
Tensor<T> on_host(const Tensor<T>& x) {
  return x;
}

template <class T>
Tensor<T> on_host(const Tensor<T, toy::Offset>& x) {
  return toy::host(x);
}

/// z = x + swiglu(norm(x) · gateᵀ, norm(x) · upᵀ), everything trained: the bits of z and of every gradient.
template <class C, class Device>
Bits block() {
  using P = Param<C>;
  const std::int64_t tokens = 5, width = 7;
  const auto master = [&](const char* name, int seed) {
    perft::Weight<P, Device> w(name, on<Device>(tensor<P>(numbers(width * width, seed), {width, width})));
    w.parameter()->set_trainable(true);
    return w;
  };
  perft::Weight<P, Device> gate = master("gate", 1), up = master("up", 2);
  perft::Parameter<P, Device> norm("norm", on<Device>(tensor<P>(numbers(width, 3), {width})));
  norm.set_trainable(true);
  Tape tape;
  perft::Recording recording(tape);
  const auto x = perft::leaf(tape, on<Device>(tensor<C>(numbers(tokens * width, 4), {tokens, width})));
  const auto h = perft::rms_norm(x, norm, 1e-5);
  const auto z = perft::add(x, perft::swiglu(perft::linear<C>(h, gate), perft::linear<C>(h, up)));
  const auto x_edge = x.edge();
  tape.add_gradient(z.edge(), on<Device>(tensor<C>(numbers(tokens * width, 5), {tokens, width})));
  tape.backward();
  return Bits()
      .add(on_host(z.value()))
      .add(on_host(tape.take_gradient<C, Device>(x_edge)))
      .add(on_host(norm.gradient()))
      .add(on_host(gate.parameter()->gradient()))
      .add(on_host(up.parameter()->gradient()));
}

template <class X>
concept Droppable = requires(const X& x) {
  dropout_forward(x, perft::Dropout{});
};

template <class X>
concept Normable = requires(const X& x) {
  rms_norm_forward(x, x, 1e-5);
};

// An op that a device lacks does not compile.
static_assert(Droppable<Tensor<float>> && !Droppable<Tensor<float, toy::Offset>>);
static_assert(Normable<Tensor<float>> && Normable<Tensor<float, toy::Offset>>);

}  // namespace

TEST_CASE("second device: the same differentiable functions find its overloads and give the CPU's bits") {
  CHECK(block<float, toy::Offset>() == block<float, Cpu>());
  CHECK(block<bf16, toy::Offset>() == block<bf16, Cpu>());
  CHECK(toy::copies > 0);
}

TEST_CASE("second device: a gradient of one device cannot be taken as another's") {
  Tape tape;
  perft::Recording recording(tape);
  const auto x = perft::leaf(tape, toy::device(tensor<float>({1, 2}, {2})));
  const auto edge = x.edge();
  tape.add_gradient(edge, toy::device(tensor<float>({1, 2}, {2})));
  CHECK(error_text<perft::Error>([&] { tape.take_gradient<float>(edge); }) ==
        "tape: a gradient's element type or device differs from its variable's");
}

// What a second device takes: memory, overloads of the forward and backward functions it has, and nothing else. The
// differentiable functions and their nodes are the ones that run on Cpu.

#include <catch2/catch.hpp>  // test cases
#include <cstdint>           // addresses
#include <cstring>           // std::memcpy
#include <memory>            // owners

#include "ops/support/harness.hpp"
#include "perft/ops/add.hpp"
#include "perft/ops/clamp.hpp"
#include "perft/ops/linear.hpp"
#include "perft/ops/rms_norm.hpp"
#include "perft/ops/swiglu.hpp"

namespace toy {

/// Host memory whose addresses are shifted, so that whoever reads an element without going through host() faults.
struct Offset {};

constexpr std::uintptr_t kShift = std::uintptr_t{1} << 56;

inline int copies = 0;  // host() calls: the work really passed through this device

}  // namespace toy

namespace perft::inline PERFT_ABI {

template <>
struct DeviceMemory<toy::Offset> {
  static std::shared_ptr<void> allocate(std::size_t bytes) {
    auto memory = DeviceMemory<Cpu>::allocate(bytes);
    auto* shifted = reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(memory.get()) + toy::kShift);
    return {shifted, [memory](void*) {}};
  }
};

}  // namespace perft::inline PERFT_ABI

namespace toy {

using perft::ComputeType;
using perft::Param;
using perft::Parameter;
using perft::Precision;
using perft::Tensor;
using perft::Weight;

template <class T>
T* real(const T* shifted) {
  return reinterpret_cast<T*>(reinterpret_cast<std::uintptr_t>(shifted) - kShift);
}

template <class T>
Tensor<T> host(const Tensor<T, Offset>& x) {
  ++copies;
  Tensor<T> y = Tensor<T>::empty(x.shape());
  std::memcpy(y.mutable_data(), real(x.data()), y.bytes());
  return y;
}

template <class T>
Tensor<T, Offset> device(const Tensor<T>& x) {
  Tensor<T, Offset> y = Tensor<T, Offset>::empty(x.shape());
  std::memcpy(real(y.data()), x.data(), x.bytes());
  return y;
}

template <class T>
void assign(Tensor<T, Offset>& to, const Tensor<T>& from) {
  std::memcpy(real(to.data()), from.data(), from.bytes());
}

// What the tape and parameters ask for.
template <class T>
void accumulate(Tensor<T, Offset>& sum, const Tensor<T, Offset>& x) {
  Tensor<T> total = host(sum);
  perft::accumulate(total, host(x));
  assign(sum, total);
}

template <class T>
Tensor<T, Offset> copy_of(const Tensor<T, Offset>& x) {
  return device(host(x));
}

template <class T>
Tensor<T, Offset> zeros_like(const Tensor<T, Offset>& x) {
  return device(Tensor<T>::zeros(x.shape()));
}

template <ComputeType C, class B>
Tensor<C, Offset> add_forward(const Tensor<C, Offset>& x, const Tensor<B, Offset>& y) {
  return device(perft::add_forward(host(x), host(y)));
}

template <ComputeType C>
Tensor<C, Offset> swiglu_forward(const Tensor<C, Offset>& gate, const Tensor<C, Offset>& up) {
  return device(perft::swiglu_forward(host(gate), host(up)));
}

template <ComputeType C>
perft::SwigluGradients<C, Offset> swiglu_backward(const Tensor<C, Offset>& da, const Tensor<C, Offset>& gate,
                                                  const Tensor<C, Offset>& up) {
  const auto out = perft::swiglu_backward(host(da), host(gate), host(up));
  return {device(out.dgate), device(out.dup)};
}

template <ComputeType C, class P>
perft::RmsNormOutput<C, Offset> rms_norm_forward(const Tensor<C, Offset>& x, const Tensor<P, Offset>& w, double eps) {
  const auto out = perft::rms_norm_forward(host(x), host(w), eps);
  return {device(out.y), device(out.inverse)};
}

template <ComputeType C, class P>
Tensor<C, Offset> rms_norm_backward_input(const Tensor<C, Offset>& dy, const Tensor<C, Offset>& x,
                                          const Tensor<P, Offset>& w, const Tensor<P, Offset>& inverse) {
  return device(perft::rms_norm_backward_input(host(dy), host(x), host(w), host(inverse)));
}

template <ComputeType C, class P>
void rms_norm_backward_weight(const Tensor<C, Offset>& dy, const Tensor<C, Offset>& x, const Tensor<P, Offset>& inverse,
                              Tensor<P, Offset>& dw) {
  Tensor<P> sum = host(dw);
  perft::rms_norm_backward_weight(host(dy), host(x), host(inverse), sum);
  assign(dw, sum);
}

template <class P>
Weight<P> host(const Weight<P, Offset>& w) {
  return {w.name(), host(w.parameter()->value())};
}

template <class Out, ComputeType C>
Tensor<Out, Offset> linear_forward(const Tensor<C, Offset>& x, const Weight<Param<C>, Offset>& w, Precision precision) {
  return device(perft::linear_forward<Out>(host(x), host(w), precision));
}

template <ComputeType C, class Out>
Tensor<C, Offset> linear_backward_input(const Tensor<Out, Offset>& dy, const Weight<Param<C>, Offset>& w,
                                        Precision precision) {
  return device(perft::linear_backward_input<C>(host(dy), host(w), precision));
}

template <class Out, ComputeType C>
void linear_backward_weight(const Tensor<Out, Offset>& dy, const Tensor<C, Offset>& x, Parameter<Param<C>, Offset>& w,
                            Precision precision) {
  Parameter<Param<C>> own(w.name(), host(w.value()));
  own.set_trainable(true);
  own.gradient_accumulator() = host(w.gradient_accumulator());
  perft::linear_backward_weight(host(dy), host(x), own, precision);
  assign(w.gradient_accumulator(), own.gradient());
}

}  // namespace toy

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
concept Clampable = requires(const X& x) {
  clamp_forward(x, 1.0);
};

template <class X>
concept Normable = requires(const X& x) {
  rms_norm_forward(x, x, 1e-5);
};

// An op that a device lacks does not compile.
static_assert(Clampable<Tensor<float>> && !Clampable<Tensor<float, toy::Offset>>);
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

#pragma once
// SwiGLU: a = silu(gate) ⊙ up.

#include <memory>       // nodes
#include <string_view>  // node name
#include <vector>       // scratch rows

#include "perft/autograd/variable.hpp"
#include "perft/core/parallel.hpp"
#include "perft/core/vec.hpp"
#include "perft/ops/rows.hpp"

namespace perft::inline PERFT_ABI {

/// a[t, f] = silu(gate[t, f]) · up[t, f]. gate, up [T, F] C -> a [T, F] C, arithmetic in Param<C>.
/// Throws ShapeError if the shapes differ. Source: Shazeer 2020, eq. 6; transformers OlmoeMLP.
template <ComputeType C>
Tensor<C> swiglu_forward(const Tensor<C>& gate, const Tensor<C>& up) {
  using P = Param<C>;
  check<ShapeError>(gate.rank() == 2 && gate.contiguous() && up.contiguous() && gate.shape() == up.shape(),
                    "swiglu: up is ", up.shape(), ", expected gate's ", gate.shape(), ", both contiguous [T, F]");
  const std::int64_t width = gate.size(1);
  Tensor<C> a = Tensor<C>::empty(gate.shape());
  C* out = a.mutable_data();
  parallel_for(gate.size(0), row_grain(width), [&](std::int64_t begin, std::int64_t end) {
    std::vector<P> scratch(static_cast<std::size_t>(3 * width));
    for (std::int64_t t = begin; t < end; ++t) {
      const P* g = widened(gate.data() + t * width, scratch.data(), width);
      const P* u = widened(up.data() + t * width, scratch.data() + width, width);
      vec::silu_mul(g, u, scratch.data() + 2 * width, width);
      store_rounded(scratch.data() + 2 * width, out + t * width, width);
    }
  });
  return a;
}

template <ComputeType C, class Device = Cpu>
struct SwigluGradients {
  Tensor<C, Device> dgate;  // [T, F]
  Tensor<C, Device> dup;    // [T, F]
};

/// With s = sigmoid(gate): dgate = da · up · s · (1 + gate · (1 − s)), dup = da · gate · s.
template <ComputeType C>
SwigluGradients<C> swiglu_backward(const Tensor<C>& da, const Tensor<C>& gate, const Tensor<C>& up) {
  using P = Param<C>;
  const std::int64_t width = gate.size(1);
  SwigluGradients<C> out{Tensor<C>::empty(gate.shape()), Tensor<C>::empty(gate.shape())};
  C* dgate = out.dgate.mutable_data();
  C* dup = out.dup.mutable_data();
  parallel_for(gate.size(0), row_grain(width), [&](std::int64_t begin, std::int64_t end) {
    std::vector<P> scratch(static_cast<std::size_t>(5 * width));
    P* dg = scratch.data() + 3 * width;
    P* du = dg + width;
    for (std::int64_t t = begin; t < end; ++t) {
      const P* g = widened(gate.data() + t * width, scratch.data(), width);
      const P* u = widened(up.data() + t * width, scratch.data() + width, width);
      const P* d = widened(da.data() + t * width, scratch.data() + 2 * width, width);
      vec::silu_mul_backward(g, u, d, dg, du, width);
      store_rounded(dg, dgate + t * width, width);
      store_rounded(du, dup + t * width, width);
    }
  });
  return out;
}

/// Saves gate and up.
template <ComputeType C, class Device = Cpu>
class SwigluNode final : public Node {
 public:
  SwigluNode(Edge gate_edge, Edge up_edge, Edge a_edge, Tensor<C, Device> gate, Tensor<C, Device> up)
      : gate_edge_(gate_edge), up_edge_(up_edge), a_edge_(a_edge), gate_(std::move(gate)), up_(std::move(up)) {}

  std::string_view name() const override { return "swiglu"; }

  std::size_t saved_bytes() const override { return gate_.bytes() + up_.bytes(); }

  void backward(Tape& tape) override {
    const Tensor<C, Device> da = tape.take_gradient<C, Device>(a_edge_);
    if (!da.defined()) {
      return;
    }
    SwigluGradients<C, Device> gradients = swiglu_backward(da, gate_, up_);
    tape.add_gradient(gate_edge_, std::move(gradients.dgate));
    tape.add_gradient(up_edge_, std::move(gradients.dup));
  }

 private:
  Edge gate_edge_;
  Edge up_edge_;
  Edge a_edge_;
  Tensor<C, Device> gate_;
  Tensor<C, Device> up_;
};

/// Differentiable swiglu_forward. (Inside the MoE block the same row kernels run in the epilogue of the expert GEMMs.)
template <ComputeType C, class Device>
Variable<C, Device> swiglu(const Variable<C, Device>& gate, const Variable<C, Device>& up) {
  return differentiable(
      swiglu_forward(gate.value(), up.value()), gate.needs_gradient() || up.needs_gradient(), [&](Edge a_edge) {
        return std::make_unique<SwigluNode<C, Device>>(gate.edge(), up.edge(), a_edge, gate.value(), up.value());
      });
}

}  // namespace perft::inline PERFT_ABI

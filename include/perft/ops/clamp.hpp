#pragma once
// Clamp to [−limit, limit]: OLMoE's clip_qkv.

#include <algorithm>    // std::clamp
#include <memory>       // nodes
#include <string_view>  // node name

#include "perft/autograd/variable.hpp"
#include "perft/ops/add.hpp"

namespace perft::inline PERFT_ABI {

/// y = min(max(x, −limit), limit), any shape, contiguous. Source: transformers OlmoeAttention, clip_qkv.
template <ComputeType C>
Tensor<C> clamp_forward(const Tensor<C>& x, double limit) {
  using P = Param<C>;
  Tensor<C> y = Tensor<C>::empty(x.shape());
  C* out = y.mutable_data();
  const C* in = x.span().data();
  const C bound = static_cast<C>(limit);
  const P high = static_cast<P>(bound);
  detail::elementwise(x.numel(),
                      [&](std::int64_t i) { out[i] = static_cast<C>(std::clamp(static_cast<P>(in[i]), -high, high)); });
  return y;
}

/// dx = dy where |x| ≤ limit, else 0 (torch.clamp's convention at the border). Both of one shape, contiguous.
template <ComputeType C>
Tensor<C> clamp_backward(const Tensor<C>& dy, const Tensor<C>& x, double limit) {
  using P = Param<C>;
  check<ShapeError>(dy.shape() == x.shape(), "clamp: dy is ", dy.shape(), ", expected ", x.shape());
  Tensor<C> dx = Tensor<C>::empty(x.shape());
  C* out = dx.mutable_data();
  const C* in = x.span().data();
  const C* from = dy.span().data();
  const P high = static_cast<P>(static_cast<C>(limit));
  detail::elementwise(x.numel(), [&](std::int64_t i) {
    const P value = static_cast<P>(in[i]);
    out[i] = value >= -high && value <= high ? from[i] : C{};
  });
  return dx;
}

/// Saves x (or its recipe).
template <ComputeType C, class Device = Cpu>
class ClampNode final : public Node {
 public:
  ClampNode(Edge x_edge, Edge y_edge, Saved<C, Device> x, double limit)
      : x_edge_(x_edge), y_edge_(y_edge), x_(std::move(x)), limit_(limit) {}

  std::string_view name() const override { return "clamp"; }

  std::size_t saved_bytes() const override { return x_.bytes(); }

  void backward(Tape& tape) override {
    const Tensor<C, Device> dy = tape.take_gradient<C, Device>(y_edge_);
    if (dy.defined()) {
      tape.add_gradient(x_edge_, clamp_backward(dy, x_.get(), limit_));
    }
  }

 private:
  Edge x_edge_;
  Edge y_edge_;
  Saved<C, Device> x_;
  double limit_;
};

/// Differentiable clamp_forward. If x can be formed again, so can y.
template <ComputeType C, class Device>
Variable<C, Device> clamp(const Variable<C, Device>& x, double limit) {
  const Variable<C, Device> y = differentiable(clamp_forward(x.value(), limit), x.needs_gradient(), [&](Edge y_edge) {
    return std::make_unique<ClampNode<C, Device>>(x.edge(), y_edge, x.saved(), limit);
  });
  if (!x.recipe()) {
    return y;
  }
  return y.formed_by(make_recipe<C, Device>([from = x.recipe(), limit] { return clamp_forward(from->form(), limit); }));
}

}  // namespace perft::inline PERFT_ABI

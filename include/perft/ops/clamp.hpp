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

/// Saves x. dx = dy where |x| ≤ limit, else 0 (torch.clamp's convention at the border).
template <ComputeType C>
class ClampNode final : public Node {
 public:
  ClampNode(Edge x_edge, Edge y_edge, Tensor<C> x, double limit)
      : x_edge_(x_edge), y_edge_(y_edge), x_(std::move(x)), limit_(limit) {}

  std::string_view name() const override { return "clamp"; }

  std::size_t saved_bytes() const override { return x_.bytes(); }

  void backward(Tape& tape) override {
    using P = Param<C>;
    const Tensor<C> dy = tape.take_gradient<C>(y_edge_);
    if (!dy.defined()) {
      return;
    }
    Tensor<C> dx = Tensor<C>::empty(x_.shape());
    C* out = dx.mutable_data();
    const P high = static_cast<P>(static_cast<C>(limit_));
    detail::elementwise(x_.numel(), [&](std::int64_t i) {
      const P value = static_cast<P>(x_.data()[i]);
      out[i] = value >= -high && value <= high ? dy.data()[i] : C{};
    });
    tape.add_gradient(x_edge_, std::move(dx));
  }

 private:
  Edge x_edge_;
  Edge y_edge_;
  Tensor<C> x_;
  double limit_;
};

/// Differentiable clamp_forward.
template <ComputeType C>
Variable<C> clamp(const Variable<C>& x, double limit) {
  return differentiable(clamp_forward(x.value(), limit), x.needs_gradient(), [&](Edge y_edge) {
    return std::make_unique<ClampNode<C>>(x.edge(), y_edge, x.value(), limit);
  });
}

}  // namespace perft::inline PERFT_ABI

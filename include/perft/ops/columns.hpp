#pragma once
// The first columns of a matrix, differentiably.

#include <algorithm>    // std::copy_n
#include <memory>       // nodes
#include <string_view>  // node name

#include "perft/autograd/variable.hpp"

namespace perft::inline PERFT_ABI {

/// y = x[:, 0 … count). x [T, K] -> y [T, count], contiguous. Throws ShapeError if count > K.
template <class P>
Tensor<P> first_columns_forward(const Tensor<P>& x, std::int64_t count) {
  return x.slice(1, 0, count).clone();
}

/// dx [T, width] is dy [T, count] followed by columns of zeros.
template <class P>
Tensor<P> first_columns_backward(const Tensor<P>& dy, std::int64_t width) {
  Tensor<P> dx = Tensor<P>::zeros({dy.size(0), width});
  for (std::int64_t t = 0; t < dy.size(0); ++t) {
    std::copy_n(dy.data() + t * dy.size(1), dy.size(1), dx.mutable_data() + t * width);
  }
  return dx;
}

/// Saves nothing.
template <class P, class Device = Cpu>
class FirstColumnsNode final : public Node {
 public:
  FirstColumnsNode(Edge x_edge, Edge y_edge, std::int64_t width) : x_edge_(x_edge), y_edge_(y_edge), width_(width) {}

  std::string_view name() const override { return "first_columns"; }

  std::size_t saved_bytes() const override { return 0; }

  void backward(Tape& tape) override {
    const Tensor<P, Device> dy = tape.take_gradient<P, Device>(y_edge_);
    if (dy.defined()) {
      tape.add_gradient(x_edge_, first_columns_backward(dy, width_));
    }
  }

 private:
  Edge x_edge_;
  Edge y_edge_;
  std::int64_t width_;
};

/// Differentiable first_columns_forward.
template <class P, class Device>
Variable<P, Device> first_columns(const Variable<P, Device>& x, std::int64_t count) {
  const Tensor<P, Device> y = first_columns_forward(x.value(), count);
  return differentiable(y, x.needs_gradient(), [&](Edge y_edge) {
    return std::make_unique<FirstColumnsNode<P, Device>>(x.edge(), y_edge, x.value().size(1));
  });
}

}  // namespace perft::inline PERFT_ABI

#pragma once
// Sums that meet in the residual stream: an un-rounded branch is rounded once, then added.

#include <memory>       // nodes
#include <string_view>  // node name
#include <type_traits>  // casts that are none

#include "perft/autograd/variable.hpp"
#include "perft/core/parallel.hpp"
#include "perft/ops/rows.hpp"

namespace perft::inline PERFT_ABI {

namespace detail {

/// out[i] = f(i) over all elements, in parallel chunks.
template <class F>
void elementwise(std::int64_t n, F&& f) {
  parallel_for(n, std::int64_t{1} << 14, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      f(i);
    }
  });
}

}  // namespace detail

/// x rounded to (or widened into) another floating type, element by element. x contiguous, any shape.
template <class To, class From>
Tensor<To> cast_forward(const Tensor<From>& x) {
  Tensor<To> out = Tensor<To>::empty(x.shape());
  To* to = out.mutable_data();
  const From* from = x.span().data();
  parallel_for(x.numel(), std::int64_t{1} << 14,
               [&](std::int64_t begin, std::int64_t end) { vec::convert(from + begin, to + begin, end - begin); });
  return out;
}

namespace detail {

/// cast_forward, or the tensor itself if it is of that type.
template <class To, class From, class Device>
Tensor<To, Device> cast(const Tensor<From, Device>& x) {
  if constexpr (std::is_same_v<To, From>) {
    return x;
  } else {
    return cast_forward<To>(x);
  }
}

}  // namespace detail

/// z = x + round_C(y): the residual add. x [T, D] C, y [T, D] B with B = C or Param<C> -> z [T, D] C, rounded once
/// more. Throws ShapeError if the shapes differ. Source: transformers decoder layers, `residual + hidden_states`.
template <ComputeType C, class B>
Tensor<C> add_forward(const Tensor<C>& x, const Tensor<B>& y) {
  check<ShapeError>(x.shape() == y.shape(), "add: y is ", y.shape(), ", expected ", x.shape());
  Tensor<C> z = Tensor<C>::empty(x.shape());
  C* out = z.mutable_data();
  const C* a = x.span().data();
  const B* b = y.span().data();
  detail::elementwise(x.numel(), [&](std::int64_t i) { out[i] = static_cast<C>(a[i] + static_cast<C>(b[i])); });
  return z;
}

/// Saves nothing. dx = dy = dz, each only if wanted.
template <ComputeType C, class B, class Device = Cpu>
class AddNode final : public Node {
 public:
  AddNode(Edge x_edge, Edge y_edge, Edge z_edge) : x_edge_(x_edge), y_edge_(y_edge), z_edge_(z_edge) {}

  std::string_view name() const override { return "add"; }

  std::size_t saved_bytes() const override { return 0; }

  void backward(Tape& tape) override {
    const Tensor<C, Device> dz = tape.take_gradient<C, Device>(z_edge_);
    if (!dz.defined()) {
      return;
    }
    if (y_edge_.needed()) {
      tape.add_gradient(y_edge_, detail::cast<B>(dz));
    }
    tape.add_gradient(x_edge_, dz);
  }

 private:
  Edge x_edge_;
  Edge y_edge_;
  Edge z_edge_;
};

/// Differentiable add_forward.
template <ComputeType C, class B, class Device>
Variable<C, Device> add(const Variable<C, Device>& x, const Variable<B, Device>& y) {
  return differentiable(add_forward(x.value(), y.value()), x.needs_gradient() || y.needs_gradient(), [&](Edge z_edge) {
    return std::make_unique<AddNode<C, B, Device>>(x.edge(), y.edge(), z_edge);
  });
}

/// Saves nothing. Rounds to (or widens from) another type; the gradient is cast back.
template <class To, class From, class Device = Cpu>
class CastNode final : public Node {
 public:
  CastNode(Edge x_edge, Edge y_edge) : x_edge_(x_edge), y_edge_(y_edge) {}

  std::string_view name() const override { return "cast"; }

  std::size_t saved_bytes() const override { return 0; }

  void backward(Tape& tape) override {
    const Tensor<To, Device> dy = tape.take_gradient<To, Device>(y_edge_);
    if (dy.defined()) {
      tape.add_gradient(x_edge_, detail::cast<From>(dy));
    }
  }

 private:
  Edge x_edge_;
  Edge y_edge_;
};

/// y = x in type To, element by element; x itself if it is of that type.
template <class To, class From, class Device>
Variable<To, Device> cast(const Variable<From, Device>& x) {
  if constexpr (std::is_same_v<To, From>) {
    return x;
  } else {
    return differentiable(detail::cast<To>(x.value()), x.needs_gradient(),
                          [&](Edge y_edge) { return std::make_unique<CastNode<To, From, Device>>(x.edge(), y_edge); });
  }
}

}  // namespace perft::inline PERFT_ABI

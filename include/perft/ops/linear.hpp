#pragma once
// Linear without bias, over frozen (mapped) or trained weights.

#include <memory>       // nodes
#include <string_view>  // node name

#include "perft/autograd/variable.hpp"
#include "perft/autograd/weight.hpp"
#include "perft/core/gemm.hpp"
#include "perft/ops/weight_gradient.hpp"

namespace perft::inline PERFT_ABI {

/// What operands are rounded to before they are multiplied: the compute type (projections), or Param<C> (routers, which
/// are fp32 whatever the compute type; equal to kCompute on bf16 weights, whose products are exact in fp32).
enum class Precision { kCompute, kParam };

namespace detail {

template <ComputeType C>
gemm::Operand matrix(const Tensor<C>& x) {
  return {x.data(), dtype_of<C>, x.stride(0), x.stride(1)};
}

template <ComputeType C>
gemm::Operand transposed(const Tensor<C>& x) {
  return {x.data(), dtype_of<C>, x.stride(1), x.stride(0)};
}

/// y [m, n] = a [m, k] · b [k, n], multiplied in `precision`.
template <ComputeType C, class Out>
Tensor<Out> product(std::int64_t m, std::int64_t n, std::int64_t k, const gemm::Operand& a, const gemm::Operand& b,
                    Precision precision) {
  Tensor<Out> y = Tensor<Out>::empty({m, n});
  const gemm::Output c{y.mutable_data(), dtype_of<Out>, n, 1, false};
  if (precision == Precision::kParam) {
    gemm::Problem<Param<C>> problem{m, n, k, a, b};
    problem.c = c;
    gemm::run(problem);
  } else {
    gemm::Problem<C> problem{m, n, k, a, b};
    problem.c = c;
    gemm::run(problem);
  }
  return y;
}

}  // namespace detail

/// y = x · Wᵀ. x [T, K] C, W [N, K] in any storage format -> y [T, N] Out, where Out is C (rounded once) or Param<C>
/// (not rounded: something will be added first). Throws ShapeError if W's columns are not x's.
template <class Out, ComputeType C>
Tensor<Out> linear_forward(const Tensor<C>& x, const Weight<Param<C>>& w, Precision precision = Precision::kCompute) {
  check<ShapeError>(x.rank() == 2 && x.size(1) == w.cols(), "linear: '", w.name(), "' is [", w.rows(), ", ", w.cols(),
                    "], expected [*, ", x.rank() == 2 ? x.size(1) : -1, "] (last dimension of x ", x.shape(), ")");
  return detail::product<C, Out>(x.size(0), w.rows(), x.size(1), detail::matrix(x), w.transposed(), precision);
}

/// dx = dy · W, straight from W's bytes. dy [T, N] Out -> dx [T, K] C.
template <ComputeType C, class Out>
Tensor<C> linear_backward_input(const Tensor<Out>& dy, const Weight<Param<C>>& w,
                                Precision precision = Precision::kCompute) {
  check<ShapeError>(dy.rank() == 2 && dy.size(1) == w.rows(), "linear: dy is ", dy.shape(), ", expected [*, ", w.rows(),
                    "] ('", w.name(), "')");
  return detail::product<C, C>(dy.size(0), w.cols(), w.rows(), detail::matrix(dy), w.operand(), precision);
}

/// dW += dyᵀ · x (weight_gradient). dy [T, N] Out, x [T, K] C, w [N, K].
template <class Out, ComputeType C>
void linear_backward_weight(const Tensor<Out>& dy, const Tensor<C>& x, Parameter<Param<C>>& w,
                            Precision precision = Precision::kCompute) {
  if (precision == Precision::kParam) {
    weight_gradient<Param<C>>(w, dy.size(0), detail::transposed(dy), detail::matrix(x));
  } else {
    weight_gradient<C>(w, dy.size(0), detail::transposed(dy), detail::matrix(x));
  }
}

/// Saves x only if W is trained; a frozen linear saves nothing.
template <ComputeType C, class Out, class Device = Cpu>
class LinearNode final : public Node {
 public:
  LinearNode(Edge x_edge, Edge y_edge, Saved<C, Device> x, const Weight<Param<C>, Device>& w, Precision precision)
      : x_edge_(x_edge), y_edge_(y_edge), w_(w), precision_(precision) {
    if (w.trained() != nullptr) {
      x_ = std::move(x);
    }
  }

  std::string_view name() const override { return "linear"; }

  std::size_t saved_bytes() const override { return x_.bytes(); }

  void backward(Tape& tape) override {
    const Tensor<Out, Device> dy = tape.take_gradient<Out, Device>(y_edge_);
    if (!dy.defined()) {
      return;
    }
    if (Parameter<Param<C>, Device>* trained = w_.trained()) {
      linear_backward_weight(dy, x_.get(), *trained, precision_);
    }
    if (x_edge_.needed()) {
      tape.add_gradient(x_edge_, linear_backward_input<C>(dy, w_, precision_));
    }
  }

 private:
  Edge x_edge_;
  Edge y_edge_;
  Saved<C, Device> x_;
  const Weight<Param<C>, Device>& w_;
  Precision precision_;
};

/// Differentiable linear_forward; w must outlive the tape.
template <class Out, ComputeType C, class Device>
Variable<Out, Device> linear(const Variable<C, Device>& x, const Weight<Param<C>, Device>& w,
                             Precision precision = Precision::kCompute) {
  return differentiable(
      linear_forward<Out>(x.value(), w, precision), x.needs_gradient() || w.trained() != nullptr, [&](Edge y_edge) {
        return std::make_unique<LinearNode<C, Out, Device>>(x.edge(), y_edge, x.saved(), w, precision);
      });
}

}  // namespace perft::inline PERFT_ABI

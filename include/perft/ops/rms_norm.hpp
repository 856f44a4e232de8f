#pragma once
// RMSNorm. Every other op copies the shape of this file: contract, forward, backward, node, function.

#include <cmath>        // std::sqrt
#include <memory>       // nodes
#include <string_view>  // node name
#include <vector>       // partial sums

#include "perft/autograd/parameter.hpp"
#include "perft/autograd/variable.hpp"
#include "perft/core/parallel.hpp"
#include "perft/core/vec.hpp"
#include "perft/ops/rows.hpp"

namespace perft::inline PERFT_ABI {

template <ComputeType C, class Device = Cpu>
struct RmsNormOutput {
  Tensor<C, Device> y;               // [T, D]
  Tensor<Param<C>, Device> inverse;  // [T] 1 / root mean square of each row
};

/// y = w ⊙ x / sqrt(mean(x²) + eps) over the last dimension.
/// x [T, D] C, w [D] Param<C> -> y [T, D] C. Arithmetic in Param<C>, y rounded once.
/// Throws ShapeError if x is not a contiguous matrix or w is not [D].
/// Source: Zhang & Sennrich 2019, eq. 4; transformers OlmoeRMSNorm / MixtralRMSNorm (which in bf16 also rounds before
/// *w).
template <ComputeType C>
RmsNormOutput<C> rms_norm_forward(const Tensor<C>& x, const Tensor<Param<C>>& w, double eps) {
  using P = Param<C>;
  check<ShapeError>(x.rank() == 2 && x.contiguous(), "rms_norm: x is ", x.shape(), ", expected a contiguous [T, D]");
  check<ShapeError>(w.shape() == Shape{x.size(1)} && w.contiguous(), "rms_norm: w is ", w.shape(), ", expected [",
                    x.size(1), "] (last dimension of x ", x.shape(), ")");
  const std::int64_t rows = x.size(0);
  const std::int64_t width = x.size(1);
  RmsNormOutput<C> out{Tensor<C>::empty(x.shape()), Tensor<P>::empty({rows})};
  C* y = out.y.mutable_data();
  P* inverse = out.inverse.mutable_data();
  parallel_for(rows, row_grain(width), [&](std::int64_t begin, std::int64_t end) {
    std::vector<P> scratch(static_cast<std::size_t>(2 * width));
    for (std::int64_t t = begin; t < end; ++t) {
      const P* xt = widened(x.data() + t * width, scratch.data(), width);
      const P mean = vec::sum_squares(xt, width) / static_cast<P>(width);
      inverse[t] = P{1} / std::sqrt(mean + static_cast<P>(eps));
      P* yt = scratch.data() + width;
      for (std::int64_t d = 0; d < width; ++d) {
        yt[d] = w.data()[d] * (xt[d] * inverse[t]);
      }
      store_rounded(yt, y + t * width, width);
    }
  });
  return out;
}

/// dx = inverse ⊙ (w ⊙ dy − x̂ · mean(w ⊙ dy ⊙ x̂)) with x̂ = x · inverse. Shapes as in the forward.
template <ComputeType C>
Tensor<C> rms_norm_backward_input(const Tensor<C>& dy, const Tensor<C>& x, const Tensor<Param<C>>& w,
                                  const Tensor<Param<C>>& inverse) {
  using P = Param<C>;
  check<ShapeError>(dy.shape() == x.shape() && dy.contiguous(), "rms_norm: dy is ", dy.shape(), ", expected ",
                    x.shape());
  const std::int64_t width = x.size(1);
  Tensor<C> dx = Tensor<C>::empty(x.shape());
  C* out = dx.mutable_data();
  parallel_for(x.size(0), row_grain(width), [&](std::int64_t begin, std::int64_t end) {
    std::vector<P> scratch(static_cast<std::size_t>(3 * width));
    P* wdy = scratch.data() + 2 * width;
    for (std::int64_t t = begin; t < end; ++t) {
      const P* xt = widened(x.data() + t * width, scratch.data(), width);
      const P* dyt = widened(dy.data() + t * width, scratch.data() + width, width);
      const P r = inverse.data()[t];
      for (std::int64_t d = 0; d < width; ++d) {
        wdy[d] = w.data()[d] * dyt[d];
      }
      const P mean = vec::dot(wdy, xt, width) * r / static_cast<P>(width);
      for (std::int64_t d = 0; d < width; ++d) {
        wdy[d] = r * (wdy[d] - xt[d] * r * mean);
      }
      store_rounded(wdy, out + t * width, width);
    }
  });
  return dx;
}

/// dw[d] += Σ_t dy[t,d] · x[t,d] · inverse[t], added in chunks of 64 rows in order, so threads cannot change the bits.
template <ComputeType C>
void rms_norm_backward_weight(const Tensor<C>& dy, const Tensor<C>& x, const Tensor<Param<C>>& inverse,
                              Tensor<Param<C>>& dw) {
  using P = Param<C>;
  constexpr std::int64_t kRows = 64;
  const std::int64_t width = x.size(1);
  const std::int64_t chunks = (x.size(0) + kRows - 1) / kRows;
  Tensor<P> partial = Tensor<P>::zeros({chunks, width});
  P* sums = partial.mutable_data();
  parallel_for(x.size(0), kRows, [&](std::int64_t begin, std::int64_t end) {
    std::vector<P> scratch(static_cast<std::size_t>(2 * width));
    P* sum = sums + begin / kRows * width;
    for (std::int64_t t = begin; t < end; ++t) {
      const P* xt = widened(x.data() + t * width, scratch.data(), width);
      const P* dyt = widened(dy.data() + t * width, scratch.data() + width, width);
      for (std::int64_t d = 0; d < width; ++d) {
        sum[d] += dyt[d] * (xt[d] * inverse.data()[t]);
      }
    }
  });
  P* to = dw.mutable_span().data();
  for (std::int64_t c = 0; c < chunks; ++c) {
    vec::axpy(P{1}, sums + c * width, to, width);
  }
}

/// Saves x and inverse; the gradient of w exists only if w is trained.
template <ComputeType C, class Device = Cpu>
class RmsNormNode final : public Node {
 public:
  RmsNormNode(Edge x_edge, Edge y_edge, Tensor<C, Device> x, Tensor<Param<C>, Device> inverse,
              Parameter<Param<C>, Device>& w)
      : x_edge_(x_edge), y_edge_(y_edge), x_(std::move(x)), inverse_(std::move(inverse)), w_(w) {}

  std::string_view name() const override { return "rms_norm"; }

  std::size_t saved_bytes() const override { return x_.bytes() + inverse_.bytes(); }

  void backward(Tape& tape) override {
    const Tensor<C, Device> dy = tape.take_gradient<C, Device>(y_edge_);
    if (!dy.defined()) {
      return;
    }
    if (x_edge_.needed()) {
      tape.add_gradient(x_edge_, rms_norm_backward_input(dy, x_, w_.value(), inverse_));
    }
    if (w_.trainable()) {
      rms_norm_backward_weight(dy, x_, inverse_, w_.gradient_accumulator());
    }
  }

 private:
  Edge x_edge_;
  Edge y_edge_;
  Tensor<C, Device> x_;
  Tensor<Param<C>, Device> inverse_;
  Parameter<Param<C>, Device>& w_;
};

/// Differentiable rms_norm_forward; w must outlive the tape. The node keeps x, so nobody need keep y: it has a recipe.
template <ComputeType C, class Device>
Variable<C, Device> rms_norm(const Variable<C, Device>& x, Parameter<Param<C>, Device>& w, double eps) {
  RmsNormOutput<C, Device> out = rms_norm_forward(x.value(), w.value(), eps);
  const Variable<C, Device> y = differentiable(out.y, x.needs_gradient() || w.trainable(), [&](Edge y_edge) {
    return std::make_unique<RmsNormNode<C, Device>>(x.edge(), y_edge, x.value(), out.inverse, w);
  });
  if (!y.needs_gradient()) {
    return y;
  }
  return y.formed_by(
      make_recipe<C, Device>([x = x.value(), &w, eps] { return rms_norm_forward(x, w.value(), eps).y; }));
}

}  // namespace perft::inline PERFT_ABI

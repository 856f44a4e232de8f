#pragma once
// AdamW and gradient-norm clipping over a list of parameters.

#include <algorithm>  // std::min
#include <cmath>      // std::sqrt, std::pow
#include <cstdint>    // steps
#include <numeric>    // std::accumulate
#include <span>       // gradients
#include <vector>     // state

#include "perft/autograd/parameter.hpp"
#include "perft/core/parallel.hpp"

namespace perft::inline PERFT_ABI {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;
};

/// What one step of AdamW multiplies with, for a parameter in its t-th step.
template <class P>
struct AdamWFactors {
  P gradient;    // clipping
  P take1;       // 1 − β₁
  P keep2;       // β₂
  P take2;       // 1 − β₂
  P step_size;   // lr / (1 − β₁ᵗ)
  P root_bias2;  // √(1 − β₂ᵗ)
  P eps;
  P decay;  // 1 − lr · weight decay
};

/// AdamW's update of all elements: parameter p and moments m, v in place. A device needs this and sum_of_squares().
template <class P>
void adamw_update(Tensor<P>& p, const Tensor<P>& gradient, Tensor<P>& m, Tensor<P>& v, const AdamWFactors<P>& f) {
  P* value = p.mutable_span().data();
  P* first = m.mutable_span().data();
  P* second = v.mutable_span().data();
  const P* g = gradient.span().data();
  parallel_for(p.numel(), std::int64_t{1} << 14, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const P grad = g[i] * f.gradient;
      first[i] += f.take1 * (grad - first[i]);
      second[i] = f.keep2 * second[i] + f.take2 * grad * grad;
      value[i] = value[i] * f.decay - f.step_size * (first[i] / (std::sqrt(second[i]) / f.root_bias2 + f.eps));
    }
  });
}

/// Σ g² in double, chunks of 2^14 elements in order.
template <class P>
double sum_of_squares(const Tensor<P>& gradient) {
  constexpr std::int64_t kChunk = std::int64_t{1} << 14;
  const std::span<const P> g = gradient.span();
  const auto n = static_cast<std::int64_t>(g.size());
  std::vector<double> partial(static_cast<std::size_t>((n + kChunk - 1) / kChunk));
  parallel_for(n, kChunk, [&](std::int64_t begin, std::int64_t end) {
    double sum = 0;
    for (std::int64_t i = begin; i < end; ++i) {
      const double value = static_cast<double>(g[static_cast<std::size_t>(i)]);
      sum += value * value;
    }
    partial[static_cast<std::size_t>(begin / kChunk)] = sum;
  });
  return std::accumulate(partial.begin(), partial.end(), 0.0);
}

/// sqrt(Σ g²) over all parameters that have a gradient, in double, tensors in order.
template <class P, class Device = Cpu>
double gradient_norm(const std::vector<Parameter<P, Device>*>& parameters) {
  double total = 0;
  for (const Parameter<P, Device>* parameter : parameters) {
    if (parameter->gradient().defined()) {
      total += sum_of_squares(parameter->gradient());
    }
  }
  return std::sqrt(total);
}

/// The factor clip_grad_norm_ multiplies gradients by: min(1, limit / (norm + 1e-6)); 1 if limit is 0 (no clipping).
inline double clip_factor(double norm, double limit) {
  return limit == 0 ? 1.0 : std::min(1.0, limit / (norm + 1e-6));
}

/// p ← p·(1 − lr·decay);  m ← m + (1−β₁)(g − m);  v ← β₂v + (1−β₂)g²;  p ← p − lr/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + ε).
/// State is made on first use; a parameter without a gradient is left alone, state included.
/// Source: Loshchilov & Hutter 2019, alg. 2; torch.optim.AdamW.
template <class P, class Device = Cpu>
class AdamW {
 public:
  /// Moments of one parameter, laid out as its value is.
  struct State {
    Tensor<P, Device> m, v;
    std::int64_t steps = 0;
  };

  explicit AdamW(std::vector<Parameter<P, Device>*> parameters, AdamWOptions options = {})
      : parameters_(std::move(parameters)), options_(options), state_(parameters_.size()) {}

  /// One step with gradients multiplied by `factor` (clipping). Gradients are left as they are.
  void step(double lr, double factor = 1.0) {
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      if (parameters_[i]->gradient().defined()) {
        update(*parameters_[i], state_[i], lr, static_cast<P>(factor));
      }
    }
  }

  const std::vector<Parameter<P, Device>*>& parameters() const { return parameters_; }

  std::vector<State>& state() { return state_; }

 private:
  void update(Parameter<P, Device>& parameter, State& state, double lr, P factor) {
    if (!state.m.defined()) {
      state.m = zeros_like(parameter.value());
      state.v = zeros_like(parameter.value());
    }
    ++state.steps;
    const double bias1 = 1 - std::pow(options_.beta1, static_cast<double>(state.steps));
    const double bias2 = 1 - std::pow(options_.beta2, static_cast<double>(state.steps));
    const AdamWFactors<P> factors{factor,
                                  static_cast<P>(1 - options_.beta1),
                                  static_cast<P>(options_.beta2),
                                  static_cast<P>(1 - options_.beta2),
                                  static_cast<P>(lr / bias1),
                                  static_cast<P>(std::sqrt(bias2)),
                                  static_cast<P>(options_.eps),
                                  static_cast<P>(1 - lr * options_.weight_decay)};
    adamw_update(parameter.mutable_value(), parameter.gradient(), state.m, state.v, factors);
  }

  std::vector<Parameter<P, Device>*> parameters_;
  AdamWOptions options_;
  std::vector<State> state_;
};

}  // namespace perft::inline PERFT_ABI

#pragma once
// AdamW and gradient-norm clipping over a list of parameters.

#include <algorithm>  // std::min
#include <cmath>      // std::sqrt, std::pow
#include <cstdint>    // steps
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

/// sqrt(Σ g²) over all parameters that have a gradient, in double, tensors and chunks of 2^14 elements in order.
template <class P>
double gradient_norm(const std::vector<Parameter<P>*>& parameters) {
  constexpr std::int64_t kChunk = std::int64_t{1} << 14;
  double total = 0;
  for (const Parameter<P>* parameter : parameters) {
    if (!parameter->gradient().defined()) {
      continue;
    }
    const std::span<const P> g = parameter->gradient().span();
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
    for (const double sum : partial) {
      total += sum;
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
template <class P>
class AdamW {
 public:
  /// Moments of one parameter, laid out as its value is.
  struct State {
    Tensor<P> m, v;
    std::int64_t steps = 0;
  };

  explicit AdamW(std::vector<Parameter<P>*> parameters, AdamWOptions options = {})
      : parameters_(std::move(parameters)), options_(options), state_(parameters_.size()) {}

  /// One step with gradients multiplied by `factor` (clipping). Gradients are left as they are.
  void step(double lr, double factor = 1.0) {
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      if (parameters_[i]->gradient().defined()) {
        update(*parameters_[i], state_[i], lr, static_cast<P>(factor));
      }
    }
  }

  const std::vector<Parameter<P>*>& parameters() const { return parameters_; }

  std::vector<State>& state() { return state_; }

 private:
  void update(Parameter<P>& parameter, State& state, double lr, P factor) {
    if (!state.m.defined()) {
      state.m = Tensor<P>::zeros(parameter.value().shape());
      state.v = Tensor<P>::zeros(parameter.value().shape());
    }
    ++state.steps;
    const double bias1 = 1 - std::pow(options_.beta1, static_cast<double>(state.steps));
    const double bias2 = 1 - std::pow(options_.beta2, static_cast<double>(state.steps));
    const P step_size = static_cast<P>(lr / bias1);
    const P root_bias2 = static_cast<P>(std::sqrt(bias2));
    const P take1 = static_cast<P>(1 - options_.beta1);
    const P keep2 = static_cast<P>(options_.beta2);
    const P take2 = static_cast<P>(1 - options_.beta2);
    const P eps = static_cast<P>(options_.eps);
    const P decay = static_cast<P>(1 - lr * options_.weight_decay);
    P* p = parameter.mutable_value().mutable_span().data();
    const P* g = parameter.gradient().span().data();
    P* m = state.m.mutable_data();
    P* v = state.v.mutable_data();
    parallel_for(parameter.value().numel(), std::int64_t{1} << 14, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const P grad = g[i] * factor;
        m[i] += take1 * (grad - m[i]);
        v[i] = keep2 * v[i] + take2 * grad * grad;
        p[i] = p[i] * decay - step_size * (m[i] / (std::sqrt(v[i]) / root_bias2 + eps));
      }
    });
  }

  std::vector<Parameter<P>*> parameters_;
  AdamWOptions options_;
  std::vector<State> state_;
};

}  // namespace perft::inline PERFT_ABI

#pragma once
// AdamW and gradient clipping, as torch.optim.AdamW and clip_grad_norm_ define them.

#include <algorithm>  // std::min
#include <cmath>      // std::sqrt, std::pow

#include "reference/scalar.hpp"

namespace reference {

struct AdamWOptions {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.0;
};

/// Moments of one parameter; sized by the first step.
struct AdamWState {
  std::vector<double> m, v;
};

/// Step number `step` (from 1): p ← p (1 − lr·λ); m ← β1 m + (1 − β1) g; v ← β2 v + (1 − β2) g²;
/// p ← p − lr · m̂ / (√v̂ + eps), m̂ = m / (1 − β1^step), v̂ = v / (1 − β2^step).
inline void adamw_step(std::vector<double>& p, const std::vector<double>& g, AdamWState& state, int step,
                       const AdamWOptions& options) {
  state.m.resize(p.size(), 0.0);
  state.v.resize(p.size(), 0.0);
  const double correction1 = 1.0 - std::pow(options.beta1, step);
  const double correction2 = 1.0 - std::pow(options.beta2, step);
  for (std::size_t i = 0; i < p.size(); ++i) {
    p[i] *= 1.0 - options.lr * options.weight_decay;
    state.m[i] = options.beta1 * state.m[i] + (1.0 - options.beta1) * g[i];
    state.v[i] = options.beta2 * state.v[i] + (1.0 - options.beta2) * g[i] * g[i];
    p[i] -= options.lr * (state.m[i] / correction1) / (std::sqrt(state.v[i] / correction2) + options.eps);
  }
}

/// Scales all gradients by min(1, max_norm / (norm + 1e-6)) and returns the norm they had together.
inline double clip_grad_norm(const std::vector<std::vector<double>*>& gradients, double max_norm) {
  double sum = 0.0;
  for (const auto* g : gradients) {
    for (const double x : *g) sum += x * x;
  }
  const double norm = std::sqrt(sum);
  const double scale = std::min(1.0, max_norm / (norm + 1e-6));
  for (auto* g : gradients) {
    for (double& x : *g) x *= scale;
  }
  return norm;
}

}  // namespace reference

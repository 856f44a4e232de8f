#pragma once
// The auxiliary load-balancing loss, transformers' load_balancing_loss_func with a 2-D attention mask.

#include <cstdint>  // the mask

#include "reference/router.hpp"

namespace reference {

/// aux = n · Σ_e f_e P_e, all layers' real rows pooled: f_e = choices of e / (layers · real rows), so Σ f = k, and
/// P_e = mean of softmax(logits)_e over the same rows, never renormalised. Uniform routing gives k. The derivative
/// flows through P alone. logits: one [B·T, n] per layer; mask [B·T].
template <class S>
S load_balance(const std::vector<std::vector<S>>& logits, const std::vector<std::int64_t>& mask, std::size_t n,
               std::size_t k) {
  std::vector<double> f(n, 0.0);
  std::vector<S> p_sum(n, S(0.0));
  double rows = 0.0;
  for (const auto& layer : logits) {
    for (std::size_t t = 0; t < mask.size(); ++t) {
      if (mask[t] == 0) continue;
      const auto p = softmax(row(layer, t, n));
      for (const auto e : top_k(p, k)) f[e] += 1.0;
      for (std::size_t e = 0; e < n; ++e) p_sum[e] += p[e];
      rows += 1.0;
    }
  }
  S sum(0.0);
  for (std::size_t e = 0; e < n; ++e) sum += (f[e] / rows) * (p_sum[e] / rows);
  return static_cast<double>(n) * sum;
}

}  // namespace reference

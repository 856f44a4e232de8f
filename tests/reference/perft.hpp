#pragma once
// The PERFT family (arXiv 2411.08212): small experts Δ_j beside the MoE block. All functions give what is added to
// MoE(x); x [T, D] is the block's input, after its norm.

#include "reference/moe.hpp"

namespace reference {

/// One PEFT expert: `lora` (first = A [r, D], second = B [D, r], scaling α / r) or `parallel` (first = W1 [h, D],
/// second = W2 [D, h]).
template <class S>
struct Delta {
  std::vector<S> first, second;
  bool parallel = false;
  double scaling = 1.0;  ///< of the lora form; the parallel form has none
};

/// Δ(x) = (α/r) B A x, or W2 silu(W1 x). Without dropout.
template <class S>
std::vector<S> delta_forward(const std::vector<S>& x, const Delta<S>& delta, std::size_t d) {
  const std::size_t r = delta.first.size() / d;
  auto z = linear(x, delta.first, d, r);
  if (delta.parallel) {
    for (S& value : z) value = silu(value);
  }
  auto y = linear(z, delta.second, r, d);
  if (!delta.parallel) {
    for (S& value : y) value *= delta.scaling;
  }
  return y;
}

/// PERFT-S (one Δ) and PERFT-D (M of them, no gate): Σ_j Δ_j(x).
template <class S>
std::vector<S> perft_dense(const std::vector<S>& x, const std::vector<Delta<S>>& deltas, std::size_t d) {
  std::vector<S> y(x.size(), S(0.0));
  for (const auto& delta : deltas) {
    const auto out = delta_forward(x, delta, d);
    for (std::size_t i = 0; i < y.size(); ++i) y[i] += out[i];
  }
  return y;
}

/// Σ_s w[t, s] Δ_{experts[t, s]}(x[t]): PERFT-E with the base's routing, PERFT-R with its own router's.
template <class S>
std::vector<S> perft_routed(const std::vector<S>& x, const Routing<S>& routing, const std::vector<Delta<S>>& deltas,
                            std::size_t d) {
  return routed_sum(x, routing, d,
                    [&](std::size_t j, const std::vector<S>& r) { return delta_forward(r, deltas.at(j), d); });
}

/// The routing of the authors' released OLMoE code for PERFT-R: experts chosen by the adapter's own router, the s-th
/// of them multiplied by the BASE router's s-th weight (k̃ ≤ k). The own router then learns from its auxiliary loss
/// alone.
template <class S>
Routing<S> with_base_weights(Routing<S> own, const Routing<S>& base) {
  for (std::size_t i = 0; i < own.weights.size(); ++i) {
    own.weights[i] = base.weights.at(i / own.k * base.k + i % own.k);
  }
  return own;
}

}  // namespace reference

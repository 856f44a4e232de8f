#pragma once
// The base's mixture of experts, with optional LoRA on each expert matrix.

#include "reference/linear.hpp"
#include "reference/router.hpp"
#include "reference/swiglu.hpp"

namespace reference {

/// One expert: gate and up [F, D], down [D, F], and the LoRA terms on them (rank 0: none).
template <class S>
struct Expert {
  std::vector<S> gate, up, down;
  LowRank<S> gate_lora{}, up_lora{}, down_lora{};
};

/// down( silu(gate x) · up x ), each matrix W standing for W + s·B A. x [T, D] → [T, D].
template <class S>
std::vector<S> expert_forward(const std::vector<S>& x, const Expert<S>& e, std::size_t d) {
  const std::size_t f = e.gate.size() / d;
  const auto a = swiglu(lora_linear(x, e.gate, e.gate_lora, d, f), lora_linear(x, e.up, e.up_lora, d, f));
  return lora_linear(a, e.down, e.down_lora, f, d);
}

/// y[t] = Σ_s w[t, s] · f(experts[t, s], x[t]): the one sum behind every routed variant. `f(j, row)` maps a row [1, D]
/// to [1, D].
template <class S, class F>
std::vector<S> routed_sum(const std::vector<S>& x, const Routing<S>& routing, std::size_t d, F f) {
  std::vector<S> y(x.size(), S(0.0));
  for (std::size_t t = 0; t < x.size() / d; ++t) {
    for (std::size_t s = 0; s < routing.k; ++s) {
      const auto out = f(routing.experts[t * routing.k + s], row(x, t, d));
      for (std::size_t c = 0; c < d; ++c) y[t * d + c] += routing.weights[t * routing.k + s] * out[c];
    }
  }
  return y;
}

/// MoE(x) = Σ_{i ∈ topk} G(x)_i E_i(x). x [T, D] → [T, D].
template <class S>
std::vector<S> moe(const std::vector<S>& x, const Routing<S>& routing, const std::vector<Expert<S>>& experts,
                   std::size_t d) {
  return routed_sum(x, routing, d,
                    [&](std::size_t j, const std::vector<S>& r) { return expert_forward(r, experts.at(j), d); });
}

}  // namespace reference

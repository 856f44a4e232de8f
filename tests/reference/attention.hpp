#pragma once
// Causal grouped-query attention over one padded row of a batch, as transformers' sdpa computes it.

#include <cmath>    // std::sqrt
#include <cstdint>  // the mask

#include "reference/softmax.hpp"

namespace reference {

/// out[i, h] = Σ_j softmax_j(q[i, h]·k[j, g] / √d) v[j, g], g = h / (H / H_kv), over the keys j that query i sees:
/// j ≤ i, mask[j] = 1 and, if window > 0, i − j < window (columns, padding counted). A query that sees no key gives 0
/// (padding at the start of a left-padded row). The mask says nothing about queries: padding after the real tokens
/// attends to them. q [T, H·d], k and v [T, H_kv·d], mask [T] → out [T, H·d].
template <class S>
std::vector<S> attention(const std::vector<S>& q, const std::vector<S>& k, const std::vector<S>& v,
                         const std::vector<std::int64_t>& mask, std::size_t heads, std::size_t kv_heads, std::size_t d,
                         std::size_t window = 0) {
  const std::size_t rows = mask.size();
  std::vector<S> out(rows * heads * d, S(0.0));
  for (std::size_t i = 0; i < rows; ++i) {
    std::vector<std::size_t> seen;
    for (std::size_t j = 0; j <= i; ++j) {
      if (mask[j] == 1 && (window == 0 || i - j < window)) seen.push_back(j);
    }
    if (seen.empty()) continue;
    for (std::size_t h = 0; h < heads; ++h) {
      const std::size_t g = h / (heads / kv_heads);
      std::vector<S> scores;
      for (const std::size_t j : seen) {
        S dot(0.0);
        for (std::size_t c = 0; c < d; ++c) dot += q[(i * heads + h) * d + c] * k[(j * kv_heads + g) * d + c];
        scores.push_back(dot / std::sqrt(static_cast<double>(d)));
      }
      const auto p = softmax(scores);
      for (std::size_t n = 0; n < seen.size(); ++n) {
        for (std::size_t c = 0; c < d; ++c) {
          out[(i * heads + h) * d + c] += p[n] * v[(seen[n] * kv_heads + g) * d + c];
        }
      }
    }
  }
  return out;
}

/// Every entry brought into [−limit, limit] (OLMoE's clip_qkv, after the q/k norm and before RoPE); what is outside
/// carries no derivative.
template <class S>
std::vector<S> clip(std::vector<S> x, double limit) {
  for (S& value : x) {
    if (real(value) > limit) value = S(limit);
    if (real(value) < -limit) value = S(-limit);
  }
  return x;
}

}  // namespace reference

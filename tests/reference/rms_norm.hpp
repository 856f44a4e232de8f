#pragma once
// RMS norm over the last dimension.

#include <cmath>  // std::sqrt

#include "reference/scalar.hpp"

namespace reference {

/// y = w · x / sqrt(mean(x²) + eps), row by row. x [T, D], w [D] → y [T, D]. The q/k norm of OLMoE is this over the
/// whole projection (D = H·d), before the split into heads.
template <class S>
std::vector<S> rms_norm(const std::vector<S>& x, const std::vector<S>& w, double eps) {
  const std::size_t d = w.size();
  std::vector<S> y(x.size());
  for (std::size_t t = 0; t < x.size() / d; ++t) {
    S sum(0.0);
    for (std::size_t c = 0; c < d; ++c) sum += x[t * d + c] * x[t * d + c];
    const S scale = 1.0 / std::sqrt(sum / static_cast<double>(d) + eps);
    for (std::size_t c = 0; c < d; ++c) y[t * d + c] = w[c] * (x[t * d + c] * scale);
  }
  return y;
}

}  // namespace reference

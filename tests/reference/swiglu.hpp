#pragma once
// SiLU and SwiGLU.

#include <cmath>  // std::exp

#include "reference/scalar.hpp"

namespace reference {

/// x / (1 + exp(−x)). Where the exponential overflows, the quotient is 0, as it should be.
template <class S>
S silu(const S& x) {
  return x / (1.0 + std::exp(-x));
}

/// silu(gate) · up, entry by entry.
template <class S>
std::vector<S> swiglu(const std::vector<S>& gate, const std::vector<S>& up) {
  std::vector<S> a(gate.size());
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = silu(gate[i]) * up[i];
  return a;
}

}  // namespace reference

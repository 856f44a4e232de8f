#pragma once
// Softmax and log-softmax of one row.

#include <algorithm>  // std::max
#include <cmath>      // std::exp, std::log

#include "reference/scalar.hpp"

namespace reference {

/// p_i = exp(x_i) / Σ_j exp(x_j), shifted by the largest real part (which cancels exactly, derivative included).
template <class S>
std::vector<S> softmax(const std::vector<S>& x) {
  double largest = real(x.at(0));
  for (const S& value : x) largest = std::max(largest, real(value));
  std::vector<S> p(x.size());
  S sum(0.0);
  for (std::size_t i = 0; i < x.size(); ++i) sum += p[i] = std::exp(x[i] - largest);
  for (S& value : p) value /= sum;
  return p;
}

/// log Σ_j exp(x_j), shifted in the same way.
template <class S>
S log_sum_exp(const std::vector<S>& x) {
  double largest = real(x.at(0));
  for (const S& value : x) largest = std::max(largest, real(value));
  S sum(0.0);
  for (const S& value : x) sum += std::exp(value - largest);
  return std::log(sum) + largest;
}

}  // namespace reference

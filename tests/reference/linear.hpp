#pragma once
// Linear layers without bias, with and without a LoRA term.

#include "reference/scalar.hpp"

namespace reference {

/// y[t, o] = Σ_i x[t, i] w[o, i]. x [T, in], w [out, in] → y [T, out].
template <class S>
std::vector<S> linear(const std::vector<S>& x, const std::vector<S>& w, std::size_t in, std::size_t out) {
  const std::size_t rows = x.size() / in;
  std::vector<S> y(rows * out, S(0.0));
  for (std::size_t t = 0; t < rows; ++t) {
    for (std::size_t o = 0; o < out; ++o) {
      for (std::size_t i = 0; i < in; ++i) y[t * out + o] += x[t * in + i] * w[o * in + i];
    }
  }
  return y;
}

/// A low-rank term s·B A, or nothing (rank 0). a [r, in], b [out, r]; s = α / r.
template <class S>
struct LowRank {
  std::vector<S> a;
  std::vector<S> b;
  std::size_t rank = 0;
  double scaling = 0.0;
};

/// s · B (A x), x [T, in] → [T, out]; zeros if there is no term.
template <class S>
std::vector<S> low_rank(const std::vector<S>& x, const LowRank<S>& term, std::size_t in, std::size_t out) {
  if (term.rank == 0) return std::vector<S>(x.size() / in * out, S(0.0));
  auto y = linear(linear(x, term.a, in, term.rank), term.b, term.rank, out);
  for (S& value : y) value *= term.scaling;
  return y;
}

/// W x + s · B A x: a linear layer with LoRA (Hu et al. 2021), for any projection.
template <class S>
std::vector<S> lora_linear(const std::vector<S>& x, const std::vector<S>& w, const LowRank<S>& term, std::size_t in,
                           std::size_t out) {
  auto y = linear(x, w, in, out);
  const auto added = low_rank(x, term, in, out);
  for (std::size_t i = 0; i < y.size(); ++i) y[i] += added[i];
  return y;
}

}  // namespace reference

#pragma once
// The scalar the references are written for: S = double gives values, S = std::complex<double> exact derivatives by
// the complex step. Comparisons look at real parts.

#include <complex>  // std::complex
#include <cstddef>  // std::size_t
#include <vector>   // every array here is a row-major std::vector

namespace reference {

using Complex = std::complex<double>;

inline double real(double x) {
  return x;
}

inline double real(const Complex& x) {
  return x.real();
}

/// x without its derivative: what PyTorch's detach() leaves.
template <class S>
S detach(const S& x) {
  return S(real(x));
}

/// Row-major copy of `v` in the scalar S.
template <class S>
std::vector<S> widen(const std::vector<double>& v) {
  return std::vector<S>(v.begin(), v.end());
}

}  // namespace reference

#pragma once
// Exact derivatives of scalar-templated functions by the complex step: f'(x) = Im f(x + ih) / h.

#include <complex>  // std::complex
#include <cstddef>  // std::size_t
#include <vector>   // arguments

namespace support {

/// The step. There is no subtraction, hence no cancellation, so it can be far below every rounding error; its square
/// underflows against 1, so the derivative is as exact as the function itself (Squire & Trapp 1998).
inline constexpr double kComplexStep = 1e-30;

/// ∂f/∂x_i at x. f takes std::vector<std::complex<double>> and returns std::complex<double>; inside it, comparisons
/// (top-k, clamp, max) are made on real parts, and nothing takes an absolute value or a conjugate.
template <class F>
double complex_step_derivative(F&& f, const std::vector<double>& x, std::size_t i) {
  std::vector<std::complex<double>> z(x.begin(), x.end());
  z.at(i) += std::complex<double>(0.0, kComplexStep);
  return std::complex<double>(f(z)).imag() / kComplexStep;
}

/// The gradient of f at x, one evaluation per entry.
template <class F>
std::vector<double> complex_step_gradient(F f, const std::vector<double>& x) {
  std::vector<double> gradient(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) gradient[i] = complex_step_derivative(f, x, i);
  return gradient;
}

}  // namespace support

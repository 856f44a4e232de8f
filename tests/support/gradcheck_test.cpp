// The complex step against derivatives known in closed form.

#include "support/gradcheck.hpp"

#include <catch2/catch.hpp>
#include <cmath>

#include "support/close.hpp"

using support::close;
using support::complex_step_gradient;
using C = std::complex<double>;

TEST_CASE("complex step: polynomials, exp and quotients to the last digits", "[support]") {
  const auto f = [](const std::vector<C>& x) { return x[0] * x[0] * x[1] + std::exp(x[1]) / x[2]; };
  const std::vector<double> x{1.25, -0.5, 3.0};
  CHECK(close(complex_step_gradient(f, x),
              {2 * x[0] * x[1], x[0] * x[0] + std::exp(x[1]) / x[2], -std::exp(x[1]) / (x[2] * x[2])}, {.abs = 1e-15}));
}

TEST_CASE("complex step: no cancellation where differences lose every digit", "[support]") {
  // f = (1 + 1e-12 x) at x = 1: a central difference with step 1e-6 would see 1e-18 beside 1.
  const auto f = [](const std::vector<C>& x) { return 1.0 + 1e-12 * x[0] * x[0]; };
  CHECK(close(complex_step_gradient(f, {1.0}), {2e-12}, {.rel_to_max = 1e-15}));
}

TEST_CASE("complex step: choices on real parts give the derivative of the chosen branch", "[support]") {
  const auto largest = [](const std::vector<C>& x) { return x[0].real() >= x[1].real() ? x[0] * x[0] : x[1]; };
  CHECK(close(complex_step_gradient(largest, {3.0, 2.0}), {6.0, 0.0}, {.abs = 1e-15}));
  CHECK(close(complex_step_gradient(largest, {1.0, 2.0}), {0.0, 1.0}, {.abs = 1e-15}));
}

TEST_CASE("complex step: a wrong gradient is told from the right one", "[support]") {
  const auto cube = [](const std::vector<C>& x) { return x[0] * x[0] * x[0]; };
  CHECK_FALSE(close(complex_step_gradient(cube, {2.0}), {12.0 + 1e-12}, {.abs = 1e-13}));
}

TEST_CASE("complex step: a single entry, and an index that does not exist", "[support]") {
  const auto f = [](const std::vector<C>& x) { return x[0] * x[1]; };
  CHECK(support::complex_step_derivative(f, {2.0, 5.0}, 1) == 2.0);
  CHECK_THROWS(support::complex_step_derivative(f, {2.0, 5.0}, 2));
}

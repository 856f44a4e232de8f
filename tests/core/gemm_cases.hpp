#pragma once
// Shared by the GEMM tests: random operands in any layout, the naive product in double, the levels to run.

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "perft/core/gemm.hpp"
#include "perft/core/rng.hpp"

namespace gemm_cases {

using namespace perft;

/// Every level this machine has; tests run on each. Which are not tested is said once.
inline std::vector<Isa> levels() {
  static bool said = false;
  std::vector<Isa> all;
  for (int i = 0; i <= static_cast<int>(Isa::amx); ++i) {
    const Isa isa = static_cast<Isa>(i);
    if (isa <= available_isa()) {
      all.push_back(isa);
    } else if (!said) {
      WARN("not run: the products on " << isa_name(isa) << ", which this processor lacks");
    }
  }
  said = true;
  return all;
}

/// While it lives, perft's own kernels compute every product: their bits promise more than oneDNN's.
struct OwnKernels {
#if defined(PERFT_ONEDNN) && PERFT_ONEDNN
  gemm::ScopedOneDnn scope{gemm::OneDnnUse::never};
#else
  OwnKernels() {}
#endif
};

/// What C does to an element before multiplying it.
template <class C>
double as_compute(double x) {
  if constexpr (std::same_as<C, double>) {
    return x;
  } else {
    return static_cast<double>(static_cast<float>(C(static_cast<float>(x))));
  }
}

/// Relative rounding error of one accumulation step.
template <class C>
constexpr double epsilon = std::same_as<C, double> ? 0x1p-53 : 0x1p-24;

/// An operand with its storage, `shift` bytes off alignment, and the values it holds.
struct Matrix {
  std::vector<std::byte> bytes;
  std::vector<double> values;  // [rows, cols], row-major, as stored (rounded to dtype)
  std::int64_t rows = 0, cols = 0;
  gemm::Operand operand;
};

inline std::uint16_t to_f16_bits(float x) {  // exact for the multiples of 1/64 below 8 used here
  if (x == 0) {
    return 0;
  }
  int exponent = 0;
  const float fraction = std::frexp(std::fabs(x), &exponent);
  const auto mantissa = static_cast<unsigned>(std::ldexp(fraction, 11)) & 0x3ffU;
  return static_cast<std::uint16_t>((x < 0 ? 0x8000U : 0U) | (static_cast<unsigned>(exponent + 14) << 10) | mantissa);
}

/// rows × cols of `dtype`; row-major, or column-major if `transposed`; rows `pad` elements apart more than needed.
inline Matrix make_matrix(std::int64_t rows, std::int64_t cols, DType dtype, bool transposed, std::int64_t pad,
                          std::size_t shift, std::uint64_t seed) {
  Matrix m;
  m.rows = rows;
  m.cols = cols;
  const std::int64_t ld = (transposed ? rows : cols) + pad;
  const std::size_t size = dtype_size(dtype);
  const std::int64_t lines = transposed ? cols : rows;
  // NaN around and between the rows: reading what does not belong to the operand shows in the result.
  m.bytes.assign(static_cast<std::size_t>(lines * ld + 64) * size + shift, std::byte{0xff});
  m.values.resize(static_cast<std::size_t>(rows * cols));
  std::byte* data = m.bytes.data() + shift;
  PhiloxStream random(seed);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < cols; ++j) {
      double value = random.uniform() * 2 - 1;
      if (dtype == DType::f16) {
        value = std::round(value * 64) / 64;
      }
      std::byte* at = data + static_cast<std::size_t>(transposed ? j * ld + i : i * ld + j) * size;
      if (dtype == DType::f64) {
        std::memcpy(at, &value, size);
      } else if (dtype == DType::f32) {
        const auto x = static_cast<float>(value);
        std::memcpy(at, &x, size);
        value = static_cast<double>(x);
      } else if (dtype == DType::bf16) {
        const bf16 x(static_cast<float>(value));
        std::memcpy(at, &x, size);
        value = static_cast<double>(static_cast<float>(x));
      } else {
        const std::uint16_t x = to_f16_bits(static_cast<float>(value));
        std::memcpy(at, &x, size);
      }
      m.values[static_cast<std::size_t>(i * cols + j)] = value;
    }
  }
  m.operand = {data, dtype, transposed ? 1 : ld, transposed ? ld : 1, nullptr, nullptr};
  return m;
}

/// Element (i, j) of A·B in double and the bound on what rounding may have done to it.
struct Expected {
  double value = 0, bound = 0;
};

template <class C>
Expected naive(const Matrix& a, const Matrix& b, std::int64_t i, std::int64_t j) {
  Expected e;
  double magnitude = 0;
  for (std::int64_t q = 0; q < a.cols; ++q) {
    const double x = as_compute<C>(a.values[static_cast<std::size_t>(i * a.cols + q)]);
    const double y = as_compute<C>(b.values[static_cast<std::size_t>(q * b.cols + j)]);
    e.value += x * y;
    magnitude += std::fabs(x * y);
  }
  e.bound = static_cast<double>(a.cols + 2) * epsilon<C> * magnitude + 1e-300;
  return e;
}

template <class C>
std::vector<gemm::Acc<C>> multiply(const Matrix& a, const Matrix& b) {
  constexpr gemm::Acc<C> guard = 7;
  std::vector<gemm::Acc<C>> c(static_cast<std::size_t>(a.rows * b.cols) + 2, guard);
  gemm::Problem<C> p;
  p.m = a.rows;
  p.n = b.cols;
  p.k = a.cols;
  p.a = a.operand;
  p.b = b.operand;
  p.c = {c.data() + 1, dtype_of<gemm::Acc<C>>, b.cols, 1};
  gemm::run<C>(p);
  REQUIRE(c.front() == guard);
  REQUIRE(c.back() == guard);
  return {c.begin() + 1, c.end() - 1};
}

/// The worst |result − naive| / bound; > 1 is a failure, NaN counts as infinite.
template <class C>
double worst_error(const Matrix& a, const Matrix& b, const std::vector<gemm::Acc<C>>& c) {
  double worst = 0;
  for (std::int64_t i = 0; i < a.rows; ++i) {
    for (std::int64_t j = 0; j < b.cols; ++j) {
      const Expected e = naive<C>(a, b, i, j);
      const double error = std::fabs(static_cast<double>(c[static_cast<std::size_t>(i * b.cols + j)]) - e.value);
      worst = error <= e.bound ? std::max(worst, error / e.bound) : HUGE_VAL;
    }
  }
  return worst;
}

}  // namespace gemm_cases

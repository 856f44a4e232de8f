#pragma once
// AVX2 + FMA micro-kernels.

#include "perft/core/config.hpp"

#if defined(__x86_64__)

#include <immintrin.h>  // intrinsics

#include <cstdint>  // fixed-width integers
#include <cstring>  // std::memcpy: rows in place may be unaligned

#include "perft/core/gemm/kernel.hpp"

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")

namespace perft::inline PERFT_ABI {

namespace gemm::detail::avx2 {

struct F32 {
  using Element = float;
  using Sum = float;
  using Register = __m256;
  static constexpr int columns = 8, depth = 1, rows = 6, panels = 2;

  static Register zero() { return _mm256_setzero_ps(); }

  static Register load(const float* p) { return _mm256_load_ps(p); }

  static Register load_sum(const float* p) { return _mm256_load_ps(p); }

  static void store_sum(float* p, Register x) { _mm256_store_ps(p, x); }

  static Register broadcast(const float* p) {
    float x = 0;
    std::memcpy(&x, p, sizeof x);
    return _mm256_set1_ps(x);
  }

  static Register multiply_add(Register a, Register b, Register c) { return _mm256_fmadd_ps(a, b, c); }

  static void transpose(const void* src, std::int64_t lds, void* dst, std::int64_t ldd) {
    const auto* in = static_cast<const float*>(src);
    auto* out = static_cast<float*>(dst);
    for (int c = 0; c < 8; c += 4) {
      __m256 v[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const float* p = in + i * lds + c;
        v[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + 4 * lds), 1);
      }
      const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(v[0], v[1]));
      const __m256d b = _mm256_castps_pd(_mm256_unpackhi_ps(v[0], v[1]));
      const __m256d d = _mm256_castps_pd(_mm256_unpacklo_ps(v[2], v[3]));
      const __m256d e = _mm256_castps_pd(_mm256_unpackhi_ps(v[2], v[3]));
      _mm256_storeu_ps(out + (c + 0) * ldd, _mm256_castpd_ps(_mm256_unpacklo_pd(a, d)));
      _mm256_storeu_ps(out + (c + 1) * ldd, _mm256_castpd_ps(_mm256_unpackhi_pd(a, d)));
      _mm256_storeu_ps(out + (c + 2) * ldd, _mm256_castpd_ps(_mm256_unpacklo_pd(b, e)));
      _mm256_storeu_ps(out + (c + 3) * ldd, _mm256_castpd_ps(_mm256_unpackhi_pd(b, e)));
    }
  }

  static void copy_row(const float* src, std::int64_t, float* dst) {
    _mm256_store_ps(dst, _mm256_loadu_ps(src));
  }
};

struct F64 {
  using Element = double;
  using Sum = double;
  using Register = __m256d;
  static constexpr int columns = 4, depth = 1, rows = 6, panels = 2;

  static Register zero() { return _mm256_setzero_pd(); }

  static Register load(const double* p) { return _mm256_load_pd(p); }

  static Register load_sum(const double* p) { return _mm256_load_pd(p); }

  static void store_sum(double* p, Register x) { _mm256_store_pd(p, x); }

  static Register broadcast(const double* p) {
    double x = 0;
    std::memcpy(&x, p, sizeof x);
    return _mm256_set1_pd(x);
  }

  static Register multiply_add(Register a, Register b, Register c) { return _mm256_fmadd_pd(a, b, c); }

  static void transpose(const void* src, std::int64_t lds, void* dst, std::int64_t ldd) {
    const auto* in = static_cast<const double*>(src);
    auto* out = static_cast<double*>(dst);
    for (int c = 0; c < 4; c += 2) {
      __m256d v[2];
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) {
        const double* p = in + i * lds + c;
        v[i] = _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(p)), _mm_loadu_pd(p + 2 * lds), 1);
      }
      _mm256_storeu_pd(out + (c + 0) * ldd, _mm256_unpacklo_pd(v[0], v[1]));
      _mm256_storeu_pd(out + (c + 1) * ldd, _mm256_unpackhi_pd(v[0], v[1]));
    }
  }

  static void copy_row(const double* src, std::int64_t, double* dst) {
    _mm256_store_pd(dst, _mm256_loadu_pd(src));
  }
};

#include "perft/core/gemm/multiply.inc"

}  // namespace gemm::detail::avx2

}  // namespace perft::inline PERFT_ABI

#pragma GCC pop_options

#endif

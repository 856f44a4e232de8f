#pragma once
// AVX-512 micro-kernels: f32, f64, and bf16 with VDPBF16PS.

#include "perft/core/config.hpp"

#if defined(__x86_64__)

#include <immintrin.h>  // intrinsics

#include <cstdint>  // fixed-width integers
#include <cstring>  // std::memcpy: rows in place may be unaligned

#include "perft/core/dtype.hpp"
#include "perft/core/gemm/kernel.hpp"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,f16c")

namespace perft::inline PERFT_ABI {

namespace gemm::detail::avx512 {

/// Full masks: the unmasked intrinsics start from an undefined register, which GCC 12 reports as uninitialised.
inline constexpr __mmask16 all = 0xffff;
inline constexpr __mmask8 all8 = 0xff;

/// Four 128-bit pieces of four rows go into one register each, so only the 4×4 transposes inside lanes are shuffles.
inline void transpose_f32(const void* src, std::int64_t lds, void* dst, std::int64_t ldd) {
  const auto* in = static_cast<const float*>(src);
  auto* out = static_cast<float*>(dst);
  for (int c = 0; c < 16; c += 4) {
    __m512 v[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const float* p = in + i * lds + c;
      v[i] = _mm512_castps128_ps512(_mm_loadu_ps(p));
      v[i] = _mm512_maskz_insertf32x4(all, v[i], _mm_loadu_ps(p + 4 * lds), 1);
      v[i] = _mm512_maskz_insertf32x4(all, v[i], _mm_loadu_ps(p + 8 * lds), 2);
      v[i] = _mm512_maskz_insertf32x4(all, v[i], _mm_loadu_ps(p + 12 * lds), 3);
    }
    const __m512d a = _mm512_castps_pd(_mm512_maskz_unpacklo_ps(all, v[0], v[1]));
    const __m512d b = _mm512_castps_pd(_mm512_maskz_unpackhi_ps(all, v[0], v[1]));
    const __m512d d = _mm512_castps_pd(_mm512_maskz_unpacklo_ps(all, v[2], v[3]));
    const __m512d e = _mm512_castps_pd(_mm512_maskz_unpackhi_ps(all, v[2], v[3]));
    _mm512_storeu_pd(out + (c + 0) * ldd, _mm512_maskz_unpacklo_pd(all8, a, d));
    _mm512_storeu_pd(out + (c + 1) * ldd, _mm512_maskz_unpackhi_pd(all8, a, d));
    _mm512_storeu_pd(out + (c + 2) * ldd, _mm512_maskz_unpacklo_pd(all8, b, e));
    _mm512_storeu_pd(out + (c + 3) * ldd, _mm512_maskz_unpackhi_pd(all8, b, e));
  }
}

inline void transpose_f64(const void* src, std::int64_t lds, void* dst, std::int64_t ldd) {
  const auto* in = static_cast<const double*>(src);
  auto* out = static_cast<double*>(dst);
  for (int c = 0; c < 8; c += 2) {
    __m512d v[2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const double* p = in + i * lds + c;
      v[i] = _mm512_castpd128_pd512(_mm_loadu_pd(p));
      v[i] = _mm512_maskz_insertf64x2(all8, v[i], _mm_loadu_pd(p + 2 * lds), 1);
      v[i] = _mm512_maskz_insertf64x2(all8, v[i], _mm_loadu_pd(p + 4 * lds), 2);
      v[i] = _mm512_maskz_insertf64x2(all8, v[i], _mm_loadu_pd(p + 6 * lds), 3);
    }
    _mm512_storeu_pd(out + (c + 0) * ldd, _mm512_maskz_unpacklo_pd(all8, v[0], v[1]));
    _mm512_storeu_pd(out + (c + 1) * ldd, _mm512_maskz_unpackhi_pd(all8, v[0], v[1]));
  }
}

/// 16 pairs (row, next row) of 16-bit elements.
inline void interleave_bf16(const bf16* src, std::int64_t lds, bf16* dst) {
  const __m512i low = _mm512_maskz_cvtepu16_epi32(all, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(src)));
  const __m512i high =
      _mm512_maskz_cvtepu16_epi32(all, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(src + lds)));
  _mm512_storeu_si512(dst, _mm512_or_si512(low, _mm512_maskz_slli_epi32(all, high, 16)));
}

struct F32 {
  using Element = float;
  using Sum = float;
  using Register = __m512;
  static constexpr int columns = 16, depth = 1, rows = 8, panels = 3;

  static Register zero() { return _mm512_setzero_ps(); }

  static Register load(const float* p) { return _mm512_load_ps(p); }

  static Register load_sum(const float* p) { return _mm512_load_ps(p); }

  static void store_sum(float* p, Register x) { _mm512_store_ps(p, x); }

  static Register broadcast(const float* p) {
    float x = 0;
    std::memcpy(&x, p, sizeof x);
    return _mm512_set1_ps(x);
  }

  static Register multiply_add(Register a, Register b, Register c) { return _mm512_fmadd_ps(a, b, c); }

  static void transpose(const void* src, std::int64_t lds, void* dst, std::int64_t ldd) {
    transpose_f32(src, lds, dst, ldd);
  }

  static void copy_row(const float* src, std::int64_t, float* dst) { _mm512_store_ps(dst, _mm512_loadu_ps(src)); }
};

struct F64 {
  using Element = double;
  using Sum = double;
  using Register = __m512d;
  static constexpr int columns = 8, depth = 1, rows = 8, panels = 3;

  static Register zero() { return _mm512_setzero_pd(); }

  static Register load(const double* p) { return _mm512_load_pd(p); }

  static Register load_sum(const double* p) { return _mm512_load_pd(p); }

  static void store_sum(double* p, Register x) { _mm512_store_pd(p, x); }

  static Register broadcast(const double* p) {
    double x = 0;
    std::memcpy(&x, p, sizeof x);
    return _mm512_set1_pd(x);
  }

  static Register multiply_add(Register a, Register b, Register c) { return _mm512_fmadd_pd(a, b, c); }

  static void transpose(const void* src, std::int64_t lds, void* dst, std::int64_t ldd) {
    transpose_f64(src, lds, dst, ldd);
  }

  static void copy_row(const double* src, std::int64_t, double* dst) { _mm512_store_pd(dst, _mm512_loadu_pd(src)); }
};

#include "perft/core/gemm/multiply.inc"

}  // namespace gemm::detail::avx512

}  // namespace perft::inline PERFT_ABI

#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512bf16,avx2,fma,f16c")

namespace perft::inline PERFT_ABI {

namespace gemm::detail::avx512_bf16 {

/// Products of pairs (k, k+1) with float accumulation; VDPBF16PS treats subnormals as zero.
struct Bf16 {
  using Element = bf16;
  using Sum = float;
  using Register = __m512;
  static constexpr int columns = 16, depth = 2, rows = 8, panels = 3;

  static Register zero() { return _mm512_setzero_ps(); }

  static Register load(const bf16* p) { return _mm512_load_ps(reinterpret_cast<const float*>(p)); }

  static Register load_sum(const float* p) { return _mm512_load_ps(p); }

  static void store_sum(float* p, Register x) { _mm512_store_ps(p, x); }

  static Register broadcast(const bf16* p) {
    int pair = 0;
    std::memcpy(&pair, p, sizeof pair);
    return _mm512_castsi512_ps(_mm512_set1_epi32(pair));
  }

  static Register multiply_add(Register a, Register b, Register c) {
    return _mm512_dpbf16_ps(c, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }

  static void transpose(const void* src, std::int64_t lds, void* dst, std::int64_t ldd) {
    avx512::transpose_f32(src, lds, dst, ldd);
  }

  static void copy_row(const bf16* src, std::int64_t lds, bf16* dst) { avx512::interleave_bf16(src, lds, dst); }
};

#include "perft/core/gemm/multiply.inc"

}  // namespace gemm::detail::avx512_bf16

}  // namespace perft::inline PERFT_ABI

#pragma GCC pop_options

#endif

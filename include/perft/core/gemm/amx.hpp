#pragma once
// AMX bf16 micro-kernel: 2×2 tiles of 16×16 float accumulators.

#include "perft/core/config.hpp"

#if defined(__x86_64__)

#include <immintrin.h>  // tile intrinsics

#include <cstdint>  // fixed-width integers

#include "perft/core/dtype.hpp"
#include "perft/core/gemm/avx512.hpp"
#include "perft/core/gemm/kernel.hpp"

#pragma GCC push_options
#pragma GCC target("amx-tile,amx-bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")

namespace perft::inline PERFT_ABI {

namespace gemm::detail::amx {

/// All eight tiles are 16 rows of 64 bytes; remainders are zero rows and columns, so one configuration serves a task.
inline void begin() {
  struct alignas(64) Config {
    std::uint8_t palette = 1;
    std::uint8_t start_row = 0;
    std::uint8_t reserved[14] = {};
    std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };

  static const Config config;
  _tile_loadconfig(&config);
}

inline void end() {
  _tile_release();
}

/// Rows that come next, brought into the cache while this call computes: tiles read 16 rows at a time, more streams
/// than hardware prefetchers follow.
inline void fetch_ahead(const RowsAhead<bf16>& ahead, std::int64_t q) {
  for (int r = 0; r < ahead.count; ++r) {
    _mm_prefetch(reinterpret_cast<const char*>(ahead.rows + r * ahead.ld + q), _MM_HINT_T1);
  }
}

inline void load_or_zero_pair(const float* c, std::int64_t bytes, bool load) {
  if (load) {
    _tile_loadd(0, c, bytes);
    _tile_loadd(1, c + 16, bytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
  }
}

/// Tiles 0–3 accumulate, 4 and 5 hold rows of A, 6 and 7 columns of B. TDPBF16PS adds 32 products per element and step;
/// the steps follow k, so the sum of an element does not depend on which tile it is in.
inline void multiply(const bf16* a, std::int64_t lda, const bf16* b, std::int64_t panel_stride, std::int64_t k,
                     float* c, std::int64_t ldc, int rows, int panels, bool load, const RowsAhead<bf16>& ahead) {
  const std::int64_t a_bytes = lda * 2;
  const std::int64_t c_bytes = ldc * 4;
  const bf16* a1 = a + 16 * lda;
  const bf16* b1 = b + panel_stride;
  float* c1 = c + 16 * ldc;
  if (rows > 16 && panels > 1) {
    load_or_zero_pair(c, c_bytes, load);
    if (load) {
      _tile_loadd(2, c1, c_bytes);
      _tile_loadd(3, c1 + 16, c_bytes);
    } else {
      _tile_zero(2);
      _tile_zero(3);
    }
    for (std::int64_t q = 0; q < k; q += 32) {
      _tile_loadd(6, b + q * 16, 64);
      _tile_loadd(4, a + q, a_bytes);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, b1 + q * 16, 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, a1 + q, a_bytes);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
      fetch_ahead(ahead, q);
    }
    _tile_stored(0, c, c_bytes);
    _tile_stored(1, c + 16, c_bytes);
    _tile_stored(2, c1, c_bytes);
    _tile_stored(3, c1 + 16, c_bytes);
  } else if (rows > 16) {
    if (load) {
      _tile_loadd(0, c, c_bytes);
      _tile_loadd(2, c1, c_bytes);
    } else {
      _tile_zero(0);
      _tile_zero(2);
    }
    for (std::int64_t q = 0; q < k; q += 32) {
      _tile_loadd(6, b + q * 16, 64);
      _tile_loadd(4, a + q, a_bytes);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(5, a1 + q, a_bytes);
      _tile_dpbf16ps(2, 5, 6);
      fetch_ahead(ahead, q);
    }
    _tile_stored(0, c, c_bytes);
    _tile_stored(2, c1, c_bytes);
  } else if (panels > 1) {
    load_or_zero_pair(c, c_bytes, load);
    for (std::int64_t q = 0; q < k; q += 32) {
      _tile_loadd(6, b + q * 16, 64);
      _tile_loadd(4, a + q, a_bytes);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, b1 + q * 16, 64);
      _tile_dpbf16ps(1, 4, 7);
      fetch_ahead(ahead, q);
    }
    _tile_stored(0, c, c_bytes);
    _tile_stored(1, c + 16, c_bytes);
  } else {
    if (load) {
      _tile_loadd(0, c, c_bytes);
    } else {
      _tile_zero(0);
    }
    for (std::int64_t q = 0; q < k; q += 32) {
      _tile_loadd(6, b + q * 16, 64);
      _tile_loadd(4, a + q, a_bytes);
      _tile_dpbf16ps(0, 4, 6);
      fetch_ahead(ahead, q);
    }
    _tile_stored(0, c, c_bytes);
  }
}

inline Kernel<bf16, float> make_kernel() {
  Kernel<bf16, float> kernel;
  kernel.columns = 16;
  kernel.depth = 2;
  kernel.k_multiple = 32;
  kernel.row_multiple = 16;
  kernel.rows = 32;
  kernel.panels = 2;
  kernel.k_block = 2048;
  kernel.k_block_in_place = 2048;
  kernel.multiply = multiply;
  kernel.transpose = avx512::transpose_f32;
  kernel.panels_from_rows = avx512_bf16::panels_from_rows<avx512_bf16::Bf16>;
  kernel.begin = begin;
  kernel.end = end;
  return kernel;
}

}  // namespace gemm::detail::amx

}  // namespace perft::inline PERFT_ABI

#pragma GCC pop_options

#endif

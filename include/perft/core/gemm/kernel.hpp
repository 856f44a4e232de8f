#pragma once
// What the blocked driver needs from an instruction set, and the portable version of it.

#include <cstdint>  // fixed-width integers
#include <cstring>  // std::memcpy: sources may be unaligned

#include "perft/core/config.hpp"
#include "perft/core/dtype.hpp"

namespace perft::inline PERFT_ABI {

namespace gemm::detail {

/// Rows of the A side that the next calls read in place.
template <class E>
struct RowsAhead {
  const E* rows = nullptr;
  std::int64_t ld = 0;
  int count = 0;
};

/// A micro-kernel multiplies rows of the A side (stored as rows, k contiguous) with columns of the B side (stored in
/// panels of `columns` columns, [k/depth][columns][depth]) and adds into accumulators, each of which is one chain over
/// k in increasing order. E is the type the packed elements have, A the accumulator's.
template <class E, class A>
struct Kernel {
  int columns = 0;            ///< columns in a B panel
  int depth = 1;              ///< consecutive k stored together in a B panel
  int k_multiple = 1;         ///< k is padded with zeros to a multiple of this (itself a multiple of depth)
  int row_multiple = 1;       ///< the A side is padded with zero rows to a multiple of this
  int rows = 0;               ///< rows of one call, a multiple of row_multiple
  int panels = 0;             ///< B panels of one call
  int k_block = 0;            ///< k per pass, so that the B panels of one call stay in the first-level cache
  int k_block_in_place = 0;   ///< k per pass over rows read where they are, at any address; 0: they are copied first
  bool through_bf16 = false;  ///< elements are rounded to bf16 although E is wider

  /// c[i·ldc + j] (+)= Σ_k a[i·lda + k]·b(j, k); rows ≤ this->rows, panels ≤ this->panels; `load` false starts from 0.
  /// `ahead` may be prefetched.
  void (*multiply)(const E* a, std::int64_t lda, const E* b, std::int64_t panel_stride, std::int64_t k, A* c,
                   std::int64_t ldc, int rows, int panels, bool load, const RowsAhead<E>& ahead) = nullptr;

  /// dst[j·ldd + i] = src[i·lds + j] for a block of columns × columns words. A word is one A, which is also `depth`
  /// packed elements.
  void (*transpose)(const void* src, std::int64_t lds, void* dst, std::int64_t ldd) = nullptr;

  /// Panels from k rows (a multiple of depth) of columns·panels elements each: src[q·lds + j] is element (j, q).
  void (*panels_from_rows)(const E* src, std::int64_t lds, std::int64_t k, std::int64_t panels, E* dst,
                           std::int64_t panel_stride) = nullptr;

  /// Bracket all use of multiply on a thread; null if there is nothing to do.
  void (*begin)() = nullptr;
  void (*end)() = nullptr;
};

template <class E, class A>
void multiply_portable(const E* a, std::int64_t lda, const E* b, std::int64_t panel_stride, std::int64_t k, A* c,
                       std::int64_t ldc, int rows, int panels, bool load, const RowsAhead<E>& /*ahead*/) {
  constexpr int columns = 8;
  for (int p = 0; p < panels; ++p) {
    const E* panel = b + p * panel_stride;
    for (int i = 0; i < rows; ++i) {
      const E* row = a + i * lda;
      A* out = c + i * ldc + p * columns;
      A sum[columns] = {};
      if (load) {
        for (int j = 0; j < columns; ++j) {
          sum[j] = out[j];
        }
      }
      for (std::int64_t q = 0; q < k; ++q) {
        for (int j = 0; j < columns; ++j) {
          sum[j] += static_cast<A>(row[q]) * static_cast<A>(panel[q * columns + j]);
        }
      }
      for (int j = 0; j < columns; ++j) {
        out[j] = sum[j];
      }
    }
  }
}

template <class E, int columns>
void transpose_portable(const void* src, std::int64_t lds, void* dst, std::int64_t ldd) {
  for (int i = 0; i < columns; ++i) {
    for (int j = 0; j < columns; ++j) {
      std::memcpy(static_cast<E*>(dst) + j * ldd + i, static_cast<const E*>(src) + i * lds + j, sizeof(E));
    }
  }
}

template <class E, int columns>
void panels_from_rows_portable(const E* src, std::int64_t lds, std::int64_t k, std::int64_t panels, E* dst,
                               std::int64_t panel_stride) {
  for (std::int64_t q = 0; q < k; ++q) {
    for (std::int64_t p = 0; p < panels; ++p) {
      std::memcpy(dst + p * panel_stride + q * columns, src + q * lds + p * columns, columns * sizeof(E));
    }
  }
}

template <class E>
Kernel<E, E> portable_kernel() {
  Kernel<E, E> kernel;
  kernel.columns = 8;
  kernel.rows = 4;
  kernel.panels = 2;
  kernel.k_block = 256;
  kernel.multiply = multiply_portable<E, E>;
  kernel.transpose = transpose_portable<E, 8>;
  kernel.panels_from_rows = panels_from_rows_portable<E, 8>;
  return kernel;
}

}  // namespace gemm::detail

}  // namespace perft::inline PERFT_ABI

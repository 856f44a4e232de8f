#pragma once
// Packing: from an operand of any dtype, stride and gather into the two layouts the micro-kernels read.

#include <algorithm>  // std::min
#include <cstdint>    // fixed-width integers

#include "perft/core/config.hpp"
#include "perft/core/gemm/kernel.hpp"
#include "perft/core/gemm/view.hpp"

namespace perft::inline PERFT_ABI {

namespace gemm::detail {

constexpr std::int64_t round_up(std::int64_t n, std::int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

constexpr std::int64_t ceil_div(std::int64_t n, std::int64_t d) {
  return (n + d - 1) / d;
}

/// Rows [o0, o1) × inner [k0, k1) as rows of dst (stride ld), padded with zeros to the kernel's row and k multiples.
template <class E, class A>
void pack_rows(const Kernel<E, A>& kernel, const View& view, std::int64_t o0, std::int64_t o1, std::int64_t k0,
               std::int64_t k1, E* dst, std::int64_t ld) {
  const std::int64_t depth = round_up(k1 - k0, kernel.k_multiple);
  if (view.inner_contiguous() || !view.outer_contiguous()) {
    for (std::int64_t o = o0; o < o1; ++o) {
      view.read_inner(o, k0, k1 - k0, dst + (o - o0) * ld, kernel.through_bf16);
    }
  } else {
    constexpr std::int64_t tile = 16;
    E block[tile][tile];
    for (std::int64_t o = o0; o < o1; o += tile) {
      const std::int64_t width = std::min(tile, o1 - o);
      for (std::int64_t k = k0; k < k1; k += tile) {
        const std::int64_t height = std::min(tile, k1 - k);
        for (std::int64_t q = 0; q < height; ++q) {
          view.read_outer(o, k + q, width, block[q], kernel.through_bf16);
        }
        for (std::int64_t i = 0; i < width; ++i) {
          for (std::int64_t q = 0; q < height; ++q) {
            dst[(o - o0 + i) * ld + (k - k0) + q] = block[q][i];
          }
        }
      }
    }
  }
  const std::int64_t rows = round_up(o1 - o0, kernel.row_multiple);
  for (std::int64_t i = 0; i < rows; ++i) {
    std::fill(dst + i * ld + (i < o1 - o0 ? k1 - k0 : 0), dst + i * ld + depth, E{});
  }
}

/// Columns [o0, o1) × inner [k0, k1) as panels of kernel.columns columns, panel_stride apart, zero-padded to whole
/// panels and to the k multiple.
template <class E, class A>
void pack_panels(const Kernel<E, A>& kernel, const View& view, std::int64_t o0, std::int64_t o1, std::int64_t k0,
                 std::int64_t k1, E* dst, std::int64_t panel_stride) {
  const std::int64_t columns = kernel.columns;
  const std::int64_t depth = kernel.depth;
  const std::int64_t padded = round_up(k1 - k0, kernel.k_multiple);
  constexpr std::int64_t tile = 64;
  E run[tile];
  for (std::int64_t o = o0; o < o1; o += columns) {
    E* panel = dst + (o - o0) / columns * panel_stride;
    const std::int64_t width = std::min(columns, o1 - o);
    if (width < columns || padded != k1 - k0) {
      std::fill(panel, panel + padded * columns, E{});
    }
    const auto slot = [&](std::int64_t k, std::int64_t j) -> E& {
      return panel[(k / depth) * (columns * depth) + j * depth + k % depth];
    };
    if (view.inner_contiguous() || !view.outer_contiguous()) {
      for (std::int64_t j = 0; j < width; ++j) {
        for (std::int64_t k = 0; k < k1 - k0; k += tile) {
          const std::int64_t length = std::min(tile, k1 - k0 - k);
          view.read_inner(o + j, k0 + k, length, run, kernel.through_bf16);
          for (std::int64_t q = 0; q < length; ++q) {
            slot(k + q, j) = run[q];
          }
        }
      }
    } else {
      for (std::int64_t k = 0; k < k1 - k0; ++k) {
        view.read_outer(o, k0 + k, width, run, kernel.through_bf16);
        for (std::int64_t j = 0; j < width; ++j) {
          slot(k, j) = run[j];
        }
      }
    }
  }
}

}  // namespace gemm::detail

}  // namespace perft::inline PERFT_ABI

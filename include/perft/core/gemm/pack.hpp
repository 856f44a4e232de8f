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

/// Whether elements can be taken as they are.
template <class E, class A>
bool same_elements(const Kernel<E, A>& kernel, const View& view) {
  return view.dtype == dtype_of<E> && !kernel.through_bf16;
}

/// Rows of dst from an operand whose outer index is contiguous: square blocks of words, transposed.
template <class E, class A>
void turn_into_rows(const Kernel<E, A>& kernel, const View& view, std::int64_t o0, std::int64_t o1, std::int64_t k0,
                    std::int64_t k1, E* dst, std::int64_t ld) {
  constexpr std::int64_t most_columns = 16;
  const std::int64_t columns = kernel.columns;
  const std::int64_t height = columns * kernel.depth;
  alignas(64) E read[2 * most_columns * most_columns];
  alignas(64) E words[2 * most_columns * most_columns];
  alignas(64) E turned[2 * most_columns * most_columns];
  std::fill(read, read + height * columns, E{});
  for (std::int64_t k = k0; k < k1; k += height) {
    const std::int64_t count = std::min(height, k1 - k);
    std::fill(read + count * columns, read + height * columns, E{});
    for (std::int64_t o = o0; o < o1; o += columns) {
      const std::int64_t width = std::min(columns, o1 - o);
      for (std::int64_t q = 0; q < count; ++q) {
        view.read_outer(o, k + q, width, read + q * columns, kernel.through_bf16);
      }
      kernel.panels_from_rows(read, columns, height, 1, words, 0);
      kernel.transpose(words, columns, turned, columns);
      for (std::int64_t i = 0; i < width; ++i) {
        std::copy(turned + i * height, turned + i * height + count, dst + (o - o0 + i) * ld + (k - k0));
      }
    }
  }
}

/// Rows [o0, o1) × inner [k0, k1) as rows of dst (stride ld), padded with zeros to the kernel's row and k multiples.
template <class E, class A>
void pack_rows(const Kernel<E, A>& kernel, const View& view, std::int64_t o0, std::int64_t o1, std::int64_t k0,
               std::int64_t k1, E* dst, std::int64_t ld) {
  if (view.inner_contiguous() || !view.outer_contiguous()) {
    for (std::int64_t o = o0; o < o1; ++o) {
      view.read_inner(o, k0, k1 - k0, dst + (o - o0) * ld, kernel.through_bf16);
    }
  } else {
    turn_into_rows(kernel, view, o0, o1, k0, k1, dst, ld);
  }
  const std::int64_t depth = round_up(k1 - k0, kernel.k_multiple);
  const std::int64_t rows = round_up(o1 - o0, kernel.row_multiple);
  for (std::int64_t i = 0; i < rows; ++i) {
    std::fill(dst + i * ld + (i < o1 - o0 ? k1 - k0 : 0), dst + i * ld + depth, E{});
  }
}

/// One panel from kernel.columns rows of `depth` elements (a multiple of kernel.depth): src[j·lds + q] is element
/// (j, q). Reads whole blocks, so rows must reach to a multiple of columns·kernel.depth.
template <class E, class A>
void turn_into_panel(const Kernel<E, A>& kernel, const E* src, std::int64_t lds, std::int64_t depth, E* panel) {
  const std::int64_t columns = kernel.columns;
  const std::int64_t height = columns * kernel.depth;
  std::int64_t k = 0;
  for (; k + height <= depth; k += height) {
    kernel.transpose(src + k, lds / kernel.depth, panel + k * columns, columns);
  }
  if (k < depth) {
    alignas(64) E turned[2 * 16 * 16];
    kernel.transpose(src + k, lds / kernel.depth, turned, columns);
    std::copy(turned, turned + (depth - k) * columns, panel + k * columns);
  }
}

template <class E, class A>
void pack_panels_inner(const Kernel<E, A>& kernel, const View& view, std::int64_t o0, std::int64_t o1, std::int64_t k0,
                       std::int64_t k1, E* dst, std::int64_t panel_stride) {
  constexpr std::int64_t chunk = 64;  // a multiple of every kernel's columns·depth
  alignas(64) E read[16 * chunk];
  const std::int64_t columns = kernel.columns;
  // A source row is walked in words, so its stride must be whole words.
  const bool direct = same_elements(kernel, view) && view.inner_contiguous() && view.outer_index == nullptr &&
                      view.outer_stride % kernel.depth == 0;
  for (std::int64_t o = o0; o < o1; o += columns) {
    E* panel = dst + (o - o0) / columns * panel_stride;
    const std::int64_t width = std::min(columns, o1 - o);
    for (std::int64_t k = k0; k < k1; k += chunk) {
      const std::int64_t count = std::min(chunk, k1 - k);
      const std::int64_t padded = std::min(chunk, round_up(k1 - k, kernel.k_multiple));
      if (direct && width == columns && count == chunk) {
        turn_into_panel(kernel, reinterpret_cast<const E*>(view.at(o, k)), view.outer_stride, chunk,
                        panel + (k - k0) * columns);
        continue;
      }
      if (width < columns || count < chunk) {
        std::fill(read, read + columns * chunk, E{});
      }
      for (std::int64_t j = 0; j < width; ++j) {
        view.read_inner(o + j, k, count, read + j * chunk, kernel.through_bf16);
      }
      turn_into_panel(kernel, read, chunk, padded, panel + (k - k0) * columns);
    }
  }
}

template <class E, class A>
void pack_panels_outer(const Kernel<E, A>& kernel, const View& view, std::int64_t o0, std::int64_t o1, std::int64_t k0,
                       std::int64_t k1, E* dst, std::int64_t panel_stride) {
  constexpr std::int64_t span = 128;
  constexpr std::int64_t chunk = 32;
  alignas(64) E read[chunk * span];
  const std::int64_t columns = kernel.columns;
  const bool direct = same_elements(kernel, view) && view.inner_index == nullptr;
  for (std::int64_t k = k0; k < k1; k += chunk) {
    const std::int64_t count = std::min(chunk, k1 - k);
    const std::int64_t padded = std::min(chunk, round_up(k1 - k, kernel.k_multiple));
    for (std::int64_t o = o0; o < o1; o += span) {
      const std::int64_t width = std::min(span, o1 - o);
      const std::int64_t panels = ceil_div(width, columns);
      E* panel = dst + (o - o0) / columns * panel_stride + (k - k0) * columns;
      if (direct && width % columns == 0 && count == padded) {
        kernel.panels_from_rows(reinterpret_cast<const E*>(view.at(o, k)), view.inner_stride, count, panels, panel,
                                panel_stride);
        continue;
      }
      if (width % columns != 0 || count != padded) {
        std::fill(read, read + padded * span, E{});
      }
      for (std::int64_t q = 0; q < count; ++q) {
        view.read_outer(o, k + q, width, read + q * span, kernel.through_bf16);
      }
      kernel.panels_from_rows(read, span, padded, panels, panel, panel_stride);
    }
  }
}

/// Columns [o0, o1) × inner [k0, k1) as panels of kernel.columns columns, panel_stride apart, zero-padded to whole
/// panels and to the k multiple.
template <class E, class A>
void pack_panels(const Kernel<E, A>& kernel, const View& view, std::int64_t o0, std::int64_t o1, std::int64_t k0,
                 std::int64_t k1, E* dst, std::int64_t panel_stride) {
  if (view.inner_contiguous() || !view.outer_contiguous()) {
    pack_panels_inner(kernel, view, o0, o1, k0, k1, dst, panel_stride);
  } else {
    pack_panels_outer(kernel, view, o0, o1, k0, k1, dst, panel_stride);
  }
}

}  // namespace gemm::detail

}  // namespace perft::inline PERFT_ABI

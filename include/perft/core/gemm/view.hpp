#pragma once
// An operand as the packing code sees it: [outer, inner], where inner is the index that is summed over.

#include <cstddef>  // std::byte
#include <cstdint>  // fixed-width integers
#include <cstring>  // std::memcpy: mapped checkpoints are not aligned

#include "perft/core/config.hpp"
#include "perft/core/dtype.hpp"
#include "perft/core/error.hpp"
#include "perft/core/gemm/problem.hpp"
#include "perft/core/vec/bytes.hpp"

namespace perft::inline PERFT_ABI {

namespace gemm::detail {

/// Element (o, k) of the operand; a [m, k] has outer = row, b [k, n] has outer = column.
struct View {
  const std::byte* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t outer_stride = 0, inner_stride = 0;
  const std::int32_t* outer_index = nullptr;
  const std::int32_t* inner_index = nullptr;

  static View of_a(const Operand& a) {
    return {static_cast<const std::byte*>(a.data), a.dtype, a.row_stride, a.col_stride, a.rows, a.cols};
  }

  static View of_b(const Operand& b) {
    return {static_cast<const std::byte*>(b.data), b.dtype, b.col_stride, b.row_stride, b.cols, b.rows};
  }

  /// Whether a run over the inner (outer) index is a run of bytes.
  bool inner_contiguous() const { return inner_stride == 1 && inner_index == nullptr; }

  bool outer_contiguous() const { return outer_stride == 1 && outer_index == nullptr; }

  const std::byte* at(std::int64_t o, std::int64_t k) const {
    const std::int64_t row = outer_index != nullptr ? outer_index[o] : o;
    const std::int64_t col = inner_index != nullptr ? inner_index[k] : k;
    return data + (row * outer_stride + col * inner_stride) * static_cast<std::int64_t>(dtype_size(dtype));
  }

  /// dst[0, n) = elements (o, k), (o, k+1), …, converted to E. `through_bf16` rounds to bf16 on the way (bf16 compute
  /// on a machine whose multiplication is in float).
  template <class E>
  void read_inner(std::int64_t o, std::int64_t k, std::int64_t n, E* dst, bool through_bf16) const {
    if (inner_contiguous()) {
      vec::convert_bytes(at(o, k), dtype, dst, n, through_bf16);
    } else {
      for (std::int64_t i = 0; i < n; ++i) {
        vec::convert_bytes(at(o, k + i), dtype, dst + i, 1, through_bf16);
      }
    }
  }

  /// dst[0, n) = elements (o, k), (o+1, k), ….
  template <class E>
  void read_outer(std::int64_t o, std::int64_t k, std::int64_t n, E* dst, bool through_bf16) const {
    if (outer_contiguous()) {
      vec::convert_bytes(at(o, k), dtype, dst, n, through_bf16);
    } else {
      for (std::int64_t i = 0; i < n; ++i) {
        vec::convert_bytes(at(o + i, k), dtype, dst + i, 1, through_bf16);
      }
    }
  }
};

}  // namespace gemm::detail

}  // namespace perft::inline PERFT_ABI

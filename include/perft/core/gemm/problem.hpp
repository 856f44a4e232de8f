#pragma once
// What a caller of GEMM fills in: operands, output, epilogue.

#include <cstdint>      // fixed-width integers
#include <optional>     // the second product
#include <type_traits>  // std::conditional_t

#include "perft/core/config.hpp"
#include "perft/core/dtype.hpp"

namespace perft::inline PERFT_ABI {

namespace gemm {

/// The accumulator type of compute type C.
template <class C>
using Acc = std::conditional_t<std::same_as<C, double>, double, float>;

/// A matrix read by GEMM: element (i, j) is data[r·row_stride + c·col_stride] of type dtype (f64, f32, f16 or bf16),
/// with r = rows ? rows[i] : i and c = cols ? cols[j] : j. Strides count elements; data needs no alignment, not even
/// that of its element type.
struct Operand {
  const void* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t row_stride = 0;
  std::int64_t col_stride = 1;
  const std::int32_t* rows = nullptr;
  const std::int32_t* cols = nullptr;
};

/// Where the result goes: element (i, j) to data[i·row_stride + j·col_stride] (f64, f32 or bf16, aligned to its element
/// type); `accumulate` adds to what is there (one addition of the finished sum, rounded once).
struct Output {
  void* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t row_stride = 0;
  std::int64_t col_stride = 1;
  bool accumulate = false;
};

/// A finished block of C: rows [i0, i1), columns [j0, j1). Element (i0+i, j0+j) of product p is
/// acc[p][i·ld_row + j·ld_col]; acc[1] is null unless the problem has a b2. ld_col is always 1, so a row of the block
/// is contiguous; it may be overwritten by the epilogue. Block borders depend on the problem's sizes (and the machine),
/// never on threads or on other problems.
template <class A>
struct Block {
  A* acc[2];
  std::int64_t ld_row, ld_col;
  std::int64_t i0, i1, j0, j1;
};

/// A second pair of operands, a [m, k] and b [k, n], whose products continue the sums of the first.
struct Tail {
  std::int64_t k = 0;
  Operand a, b;
};

/// One product C[m, n] (+)= A[m, k]·B[k, n] (+ the tail's, in the same chain of additions: two matrices side by side as
/// one, without copying them together). With b2 (same shape as b) A·B2 is computed in the same pass over A (gate
/// and up projections) and handed to the epilogue as acc[1]. If `epilogue` is set it is called once per finished block,
/// from whichever thread computed it, instead of the store to c; it must not start another GEMM. b2 and tail
/// exclude each other. Operands are gathered and converted on load; whatever else should happen to them must have
/// happened before.
template <class C>
struct Problem {
  std::int64_t m = 0, n = 0, k = 0;
  Operand a, b;
  std::optional<Operand> b2 = std::nullopt;
  std::optional<Tail> tail = std::nullopt;
  Output c = {};
  void (*epilogue)(void* context, const Problem&, const Block<Acc<C>>&) = nullptr;
  void* context = nullptr;
};

}  // namespace gemm

}  // namespace perft::inline PERFT_ABI

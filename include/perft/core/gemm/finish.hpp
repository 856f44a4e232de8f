#pragma once
// What happens to a finished block: the caller's epilogue, or the store to Output.

#include <algorithm>  // std::min
#include <cstdint>    // fixed-width integers

#include "perft/core/config.hpp"
#include "perft/core/dtype.hpp"
#include "perft/core/gemm/problem.hpp"
#include "perft/core/vec.hpp"

namespace perft::inline PERFT_ABI {

namespace gemm::detail {

template <class T, class A>
void store_row(const A* acc, const Output& c, std::int64_t i, std::int64_t j0, std::int64_t n) {
  T* out = static_cast<T*>(c.data) + i * c.row_stride + j0 * c.col_stride;
  if (c.col_stride == 1 && !c.accumulate) {
    vec::convert(acc, out, n);
    return;
  }
  if constexpr (std::same_as<T, A>) {
    if (c.col_stride == 1) {
      vec::add(out, acc, out, n);
      return;
    }
  }
  for (std::int64_t j = 0; j < n; ++j) {
    T& element = out[j * c.col_stride];
    // bf16 has no arithmetic: it is read as A, added in A, rounded once.
    const A value = c.accumulate ? static_cast<A>(element) + acc[j] : acc[j];
    vec::convert(&value, &element, 1);
  }
}

template <class C>
void finish(const Problem<C>& problem, const Block<Acc<C>>& block) {
  if (problem.epilogue != nullptr) {
    problem.epilogue(problem.context, problem, block);
    return;
  }
  if (problem.k == 0 && !problem.tail && problem.c.accumulate) {
    return;
  }
  const std::int64_t n = block.j1 - block.j0;
  for (std::int64_t i = block.i0; i < block.i1; ++i) {
    const Acc<C>* acc = block.acc[0] + (i - block.i0) * block.ld_row;
    switch (problem.c.dtype) {
      case DType::f64:
        store_row<double>(acc, problem.c, i, block.j0, n);
        break;
      case DType::bf16:
        store_row<bf16>(acc, problem.c, i, block.j0, n);
        break;
      default:
        store_row<float>(acc, problem.c, i, block.j0, n);
    }
  }
}

}  // namespace gemm::detail

}  // namespace perft::inline PERFT_ABI

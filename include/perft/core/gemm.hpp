#pragma once
// GEMM: C = A·B for every layout a transformer needs (x·Wᵀ, dy·W, dyᵀ·x, gathered rows, many experts in one job),
// straight from the operands' own storage format. The result of an element depends on its row of A, its column of B and
// the machine alone: it is bit-equal alone and in any batch, for any number of threads. (bf16 products that oneDNN
// computes keep the latter only: see gemm/onednn.hpp.)

#include <algorithm>  // std::any_of
#include <cstdint>    // fixed-width integers
#include <span>       // the problems of a job
#include <vector>     // the problems of each backend

#include "perft/core/config.hpp"
#include "perft/core/cpu_features.hpp"
#include "perft/core/dtype.hpp"
#include "perft/core/error.hpp"
#include "perft/core/gemm/driver.hpp"
#include "perft/core/gemm/onednn.hpp"
#include "perft/core/gemm/problem.hpp"
#include "perft/core/gemm/select.hpp"

namespace perft::inline PERFT_ABI {

namespace gemm {

namespace detail {

inline void check_operand(const Operand& operand, const char* name, std::int64_t count) {
  check<ValueError>(operand.data != nullptr || count == 0, "gemm: operand ", name, " has no data");
  check<UnsupportedError>(operand.dtype == DType::f64 || operand.dtype == DType::f32 || operand.dtype == DType::f16 ||
                              operand.dtype == DType::bf16,
                          "gemm: operand ", name, " is ", dtype_name(operand.dtype),
                          ", expected F64, F32, F16 or BF16");
}

template <class C>
void check_problem(const Problem<C>& p) {
  const std::int64_t tail = p.tail ? p.tail->k : 0;
  check<ShapeError>(p.m >= 0 && p.n >= 0 && p.k >= 0 && tail >= 0, "gemm: negative size in m, n, k, tail k = ", p.m,
                    ", ", p.n, ", ", p.k, ", ", tail);
  if (p.m == 0 || p.n == 0) {
    return;
  }
  check_operand(p.a, "a", p.k);
  check_operand(p.b, "b", p.k);
  if (p.b2) {
    check_operand(*p.b2, "b2", p.k);
  }
  if (p.tail) {
    check_operand(p.tail->a, "tail a", tail);
    check_operand(p.tail->b, "tail b", tail);
  }
  check<ValueError>(!p.tail || !p.b2, "gemm: b2 and a tail are given, expected at most one of them");
  check<ValueError>(p.epilogue != nullptr || !p.b2, "gemm: b2 is given without an epilogue to receive its product");
  if (p.epilogue == nullptr) {
    check<ValueError>(p.c.data != nullptr, "gemm: neither an epilogue nor output data is given");
    check<UnsupportedError>(p.c.dtype == DType::f64 || p.c.dtype == DType::f32 || p.c.dtype == DType::bf16,
                            "gemm: output is ", dtype_name(p.c.dtype), ", expected F64, F32 or BF16");
  }
}

/// On perft's own kernels.
template <class C>
void run_own(std::span<const Problem<C>> problems) {
  with_kernel<C>([&](const auto& kernel) { Job(kernel, problems).run(); });
}

}  // namespace detail

/// Computes all problems as one parallel job on ThreadPool::global() (serially when called from inside a task). Each
/// element of a product is one chain of multiply-adds over k in increasing order: in double for C = double, else in
/// float. For C = bf16 both operands are first rounded to bf16 (nearest even) if they are not. m, n, k may be 0; k = 0
/// gives zeros. Outputs of different problems must not overlap unless the problems are in different calls.
/// Errors: ShapeError (negative size), ValueError (missing data), UnsupportedError (dtype).
template <ComputeType C>
void run(std::span<const Problem<C>> problems) {
  for (const Problem<C>& problem : problems) {
    detail::check_problem(problem);
  }
#if defined(PERFT_ONEDNN) && PERFT_ONEDNN
  if constexpr (std::same_as<C, bf16>) {
    if (std::any_of(problems.begin(), problems.end(), detail::onednn_takes)) {
      std::vector<const Problem<C>*> theirs;
      std::vector<Problem<C>> ours;
      for (const Problem<C>& problem : problems) {
        if (detail::onednn_takes(problem)) {
          theirs.push_back(&problem);
        } else {
          ours.push_back(problem);
        }
      }
      detail::run_onednn(theirs);
      detail::run_own<C>(ours);
      return;
    }
  }
#endif
  detail::run_own(problems);
}

template <ComputeType C>
void run(const Problem<C>& problem) {
  run(std::span<const Problem<C>>(&problem, 1));
}

#if defined(PERFT_EXTERN_TEMPLATES)
// A program of several translation units defines PERFT_EXTERN_TEMPLATES in all of them and instantiates these three in
// one: the kernels of every instruction set then compile once (8 s of CPU for each compute type).
extern template void run<float>(std::span<const Problem<float>>);
extern template void run<double>(std::span<const Problem<double>>);
extern template void run<bf16>(std::span<const Problem<bf16>>);
#endif

}  // namespace gemm

}  // namespace perft::inline PERFT_ABI

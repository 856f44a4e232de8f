#pragma once
// How a problem is mapped onto a kernel: which operand is packed, which is streamed, and in what runs of k.

#include <cstdint>  // fixed-width integers

#include "perft/core/config.hpp"
#include "perft/core/gemm/kernel.hpp"
#include "perft/core/gemm/pack.hpp"
#include "perft/core/gemm/problem.hpp"
#include "perft/core/gemm/view.hpp"

namespace perft::inline PERFT_ABI {

namespace gemm::detail {

/// A run of the inner index: the whole of k, or first k and then the tail's.
struct InnerRun {
  View packed;
  View streamed[2];  ///< the second for b2
  std::int64_t k = 0;
  std::int64_t offset = 0;  ///< where it begins in the packed operand, in padded k
  bool in_place = false;    ///< the streamed operand may be read where it is
};

/// How one problem is mapped onto the kernel.
template <class C>
struct Plan {
  const Problem<C>* problem = nullptr;
  int products = 1;
  bool packed_is_a = true;       ///< a is packed and b streamed, or the other way round
  bool streamed_is_rows = true;  ///< the streamed operand is the kernel's A side
  InnerRun runs[2];
  int run_count = 1;
  std::int64_t packed_outer = 0, streamed_outer = 0;
  std::int64_t depth = 0;  ///< k of all runs, padded
};

/// Rows (or columns) of the packed operand that share a place in memory: small enough to stay in the second-level cache
/// while the streamed operand passes by.
inline constexpr std::int64_t packed_chunk = 256;
/// Rows of the packed operand one packing task handles, multiples of every kernel's columns and row_multiple: fewer
/// where each is a run of memory, more where a run is as long as the number of them.
inline constexpr std::int64_t packing_grain_inner = 32;
inline constexpr std::int64_t packing_grain_outer = 128;
/// A job is cut into waves whose packed operands fit in this many bytes.
inline constexpr std::int64_t wave_bytes = std::int64_t{32} << 20;

/// Whether the operand can be the kernel's A side as it is.
template <class E, class A>
bool readable_in_place(const Kernel<E, A>& kernel, const View& view) {
  return kernel.k_block_in_place > 0 && same_elements(kernel, view) && view.inner_contiguous() &&
         view.outer_index == nullptr;
}

template <class C, class E, class A>
InnerRun plan_run(const Kernel<E, A>& kernel, const View& packed, const View& streamed, std::int64_t k,
                  std::int64_t offset) {
  return {packed, {streamed, {}}, k, offset, readable_in_place(kernel, streamed) && k % kernel.k_multiple == 0};
}

template <class C, class E, class A>
Plan<C> plan_problem(const Kernel<E, A>& kernel, const Problem<C>& problem) {
  Plan<C> plan;
  plan.problem = &problem;
  plan.products = problem.b2 ? 2 : 1;
  const View a = View::of_a(problem.a);
  const View b = View::of_b(problem.b);
  // Elements moved per k: packed ones are written to memory and read back; a streamed operand that cannot stay in place
  // is packed again for every chunk it meets.
  const auto cost = [&](std::int64_t packed, std::int64_t streamed, const View& view) {
    return 4 * packed + (readable_in_place(kernel, view) ? 0 : ceil_div(packed, packed_chunk) * streamed);
  };
  plan.packed_is_a = problem.b2 || cost(problem.m, problem.n, b) <= cost(problem.n, problem.m, a);
  const auto run = [&](const View& left, const View& right, std::int64_t k) {
    return plan.packed_is_a ? plan_run<C>(kernel, left, right, k, plan.depth)
                            : plan_run<C>(kernel, right, left, k, plan.depth);
  };
  plan.runs[0] = run(a, b, problem.k);
  if (problem.b2) {
    plan.runs[0].streamed[1] = View::of_b(*problem.b2);
    plan.runs[0].in_place = plan.runs[0].in_place && readable_in_place(kernel, plan.runs[0].streamed[1]);
  }
  plan.depth = round_up(problem.k, kernel.k_multiple);
  if (problem.tail) {
    plan.runs[plan.run_count++] = run(View::of_a(problem.tail->a), View::of_b(problem.tail->b), problem.tail->k);
    plan.depth += round_up(problem.tail->k, kernel.k_multiple);
  }
  plan.packed_outer = plan.packed_is_a ? problem.m : problem.n;
  plan.streamed_outer = plan.packed_is_a ? problem.n : problem.m;
  const View& first = plan.runs[0].streamed[0];
  plan.streamed_is_rows = first.inner_contiguous() || !first.outer_contiguous();
  return plan;
}

}  // namespace gemm::detail

}  // namespace perft::inline PERFT_ABI

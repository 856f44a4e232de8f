#pragma once
// Sums over tokens that end in a low-rank expert's gradient, in an order no thread count can change.

#include <algorithm>  // std::min
#include <array>      // the rows of a chunk
#include <cstdint>    // indices
#include <vector>     // tasks, scratch rows

#include "perft/core/parallel.hpp"
#include "perft/core/vec.hpp"
#include "perft/ops/low_rank_bank.hpp"
#include "perft/ops/routing_plan.hpp"

namespace perft::inline PERFT_ABI {

/// For each expert the (token, slot) entries that reach it, tokens ascending. Undefined ids: expert e is slot e of all.
class EntryLists {
 public:
  EntryLists(const Tensor<std::int32_t>& ids, std::int64_t tokens, std::int64_t experts) : tokens_(tokens) {
    if (ids.defined()) {
      plan_ = make_routing_plan(ids, experts);
      routed_ = true;
    }
  }

  std::int64_t count(std::int64_t e) const {
    const auto i = static_cast<std::size_t>(e);
    return routed_ ? plan_.offsets[i + 1] - plan_.offsets[i] : tokens_;
  }

  std::int64_t token(std::int64_t e, std::int64_t i) const { return routed_ ? plan_.tokens[at(e, i)] : i; }

  std::int64_t slot(std::int64_t e, std::int64_t i) const { return routed_ ? plan_.slots[at(e, i)] : e; }

 private:
  std::size_t at(std::int64_t e, std::int64_t i) const {
    return static_cast<std::size_t>(plan_.offsets[static_cast<std::size_t>(e)] + i);
  }

  std::int64_t tokens_;
  RoutingPlan plan_;
  bool routed_ = false;
};

namespace detail {

/// gradient(expert)[q, :] += Σ_i coefficients(e, i)[q] · row(e, i), i over `count(e)` entries, for the parameter
/// `select` picks of each expert. Entries are summed in chunks of 64, chunks in order; a task owns a block of channels
/// of one expert. `row(e, i, first, n, scratch, mask)` returns channels [first, first + n) of the entry's row, `first`
/// a multiple of 128, and may use n elements of scratch, which outlive the call, and n of mask, which do not. An expert
/// without entries gets zeros, not nothing.
template <class P, class Select, class Count, class Coefficients, class Row>
void reduce_low_rank_gradient(LowRankBank<P>& bank, Select&& select, Count&& count, Coefficients&& coefficients,
                              Row&& row) {
  constexpr std::int64_t kChunk = 64;
  constexpr std::int64_t kBlock = 128;  // a chunk of float rows fits the first-level cache

  struct Task {
    std::int64_t expert, entries, first, n;
    P* gradient;  // from channel `first`
    std::int64_t rank, width;
  };

  std::vector<Task> tasks;
  for (std::int64_t e = 0; e < bank.size(); ++e) {
    Parameter<P>& parameter = select(bank[e]);
    if (!parameter.trainable()) {
      continue;
    }
    const Shape& shape = parameter.value().shape();
    P* gradient = parameter.gradient_accumulator().mutable_data();
    const std::int64_t entries = count(e);
    for (std::int64_t first = 0; entries > 0 && first < shape[1]; first += kBlock) {
      tasks.push_back({e, entries, first, std::min(kBlock, shape[1] - first), gradient + first, shape[0], shape[1]});
    }
  }
  ThreadPool::global().run(static_cast<std::int64_t>(tasks.size()), [&](std::int64_t task_index) {
    const Task& task = tasks[static_cast<std::size_t>(task_index)];
    std::vector<P> scratch(static_cast<std::size_t>((std::min(kChunk, task.entries) + 1) * task.n));
    P* mask = scratch.data();
    std::array<const P*, kChunk> coefficient_rows, values;
    for (std::int64_t begin = 0; begin < task.entries; begin += kChunk) {
      const std::int64_t entries = std::min(kChunk, task.entries - begin);
      for (std::int64_t i = 0; i < entries; ++i) {
        const auto at = static_cast<std::size_t>(i);
        coefficient_rows[at] = coefficients(task.expert, begin + i);
        values[at] = row(task.expert, begin + i, task.first, task.n, mask + (i + 1) * task.n, mask);
      }
      vec::sum_outer(coefficient_rows.data(), values.data(), entries, task.gradient, task.width, task.rank, task.n);
    }
  });
}

template <class P>
Parameter<P>& select_a(LowRankExpert<P>& expert) {
  return expert.a;
}

template <class P>
Parameter<P>& select_b(LowRankExpert<P>& expert) {
  return expert.b;
}

}  // namespace detail

}  // namespace perft::inline PERFT_ABI

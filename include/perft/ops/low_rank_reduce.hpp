#pragma once
// Sums over tokens that end in a low-rank expert's gradient, in an order no thread count can change.

#include <algorithm>  // std::min
#include <cstdint>    // indices
#include <vector>     // tasks, partial sums

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
/// `select` picks of each expert. Entries are summed in chunks of 64, chunks in order. `row(e, i, scratch, mask)`
/// returns the entry's row and may use two scratch rows. An expert without entries gets zeros, not nothing.
template <class P, class Select, class Count, class Coefficients, class Row>
void reduce_low_rank_gradient(LowRankBank<P>& bank, Select&& select, Count&& count, Coefficients&& coefficients,
                              Row&& row) {
  constexpr std::int64_t kChunk = 64;

  struct Task {
    std::int64_t expert, begin, end;
  };

  std::vector<Task> tasks;
  for (std::int64_t e = 0; e < bank.size(); ++e) {
    Parameter<P>& parameter = select(bank[e]);
    if (!parameter.trainable()) {
      continue;
    }
    parameter.gradient_accumulator();
    const std::int64_t entries = count(e);
    for (std::int64_t i = 0; i < entries; i += kChunk) {
      tasks.push_back({e, i, std::min(entries, i + kChunk)});
    }
  }
  std::vector<Tensor<P>> partial(tasks.size());
  ThreadPool::global().run(static_cast<std::int64_t>(tasks.size()), [&](std::int64_t task_index) {
    const Task& task = tasks[static_cast<std::size_t>(task_index)];
    const Shape& shape = select(bank[task.expert]).value().shape();
    const std::int64_t width = shape[1];
    Tensor<P> sum = Tensor<P>::zeros(shape);
    std::vector<P> scratch(static_cast<std::size_t>(2 * width));
    for (std::int64_t i = task.begin; i < task.end; ++i) {
      const P* values = row(task.expert, i, scratch.data(), scratch.data() + width);
      vec::rank1_update(coefficients(task.expert, i), values, sum.mutable_data(), width, shape[0], width);
    }
    partial[static_cast<std::size_t>(task_index)] = std::move(sum);
  });
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    Tensor<P>& gradient = select(bank[tasks[i].expert]).gradient_accumulator();
    vec::axpy(P{1}, partial[i].data(), gradient.mutable_data(), gradient.numel());
  }
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

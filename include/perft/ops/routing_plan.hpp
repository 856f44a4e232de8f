#pragma once
// RoutingPlan: the (token, slot) pairs of a batch grouped by expert, by counting sort.

#include <cstdint>  // indices
#include <limits>   // int32 positions
#include <vector>   // index lists

#include "perft/core/error.hpp"
#include "perft/core/tensor.hpp"

namespace perft::inline PERFT_ABI {

/// Sorted position p in [offsets[e], offsets[e+1]) belongs to expert e; it came from token tokens[p], slot slots[p],
/// and positions[t · K + s] leads back. Stable: within an expert, tokens ascend.
/// Specialised per device, each in its own memory; experts(), entries() and bytes() exist for all.
template <class Device>
struct DeviceRoutingPlan;

template <>
struct DeviceRoutingPlan<Cpu> {
  std::int64_t tokens_count = 0;
  std::int64_t top_k = 0;
  std::vector<std::int32_t> offsets;    // [N + 1]
  std::vector<std::int32_t> tokens;     // [T · K]
  std::vector<std::int32_t> slots;      // [T · K]
  std::vector<std::int32_t> positions;  // [T · K]

  std::int64_t experts() const { return static_cast<std::int64_t>(offsets.size()) - 1; }

  std::int64_t entries() const { return static_cast<std::int64_t>(tokens.size()); }

  std::size_t bytes() const {
    return (offsets.size() + tokens.size() + slots.size() + positions.size()) * sizeof(std::int32_t);
  }
};

using RoutingPlan = DeviceRoutingPlan<Cpu>;

/// ids [T, K] in [0, experts) -> plan. O(T · K + N). Throws ValueError naming the token of an id out of range,
/// ShapeError if ids is no matrix or T · K is more than 32-bit positions can count.
inline RoutingPlan make_routing_plan(const Tensor<std::int32_t>& ids, std::int64_t experts) {
  check<ShapeError>(ids.rank() == 2, "routing_plan: ids are ", ids.shape(), ", expected [T, K]");
  check<ShapeError>(ids.numel() <= std::numeric_limits<std::int32_t>::max(), "routing_plan: ids are ", ids.shape(),
                    ": more than ", std::numeric_limits<std::int32_t>::max(), " (token, slot) pairs; use a smaller ",
                    "micro-batch");
  RoutingPlan plan;
  plan.tokens_count = ids.size(0);
  plan.top_k = ids.size(1);
  const std::int64_t entries = ids.numel();
  const std::int32_t* id = ids.span().data();
  plan.offsets.assign(static_cast<std::size_t>(experts) + 1, 0);
  for (std::int64_t i = 0; i < entries; ++i) {
    check<ValueError>(id[i] >= 0 && id[i] < experts, "routing_plan: token ", i / plan.top_k, " chose expert ", id[i],
                      ", expected [0, ", experts, ")");
    ++plan.offsets[static_cast<std::size_t>(id[i]) + 1];
  }
  for (std::size_t e = 1; e < plan.offsets.size(); ++e) {
    plan.offsets[e] += plan.offsets[e - 1];
  }
  plan.tokens.resize(static_cast<std::size_t>(entries));
  plan.slots.resize(static_cast<std::size_t>(entries));
  plan.positions.resize(static_cast<std::size_t>(entries));
  std::vector<std::int32_t> next(plan.offsets.begin(), plan.offsets.end() - 1);
  for (std::int64_t i = 0; i < entries; ++i) {
    const auto p = static_cast<std::size_t>(next[static_cast<std::size_t>(id[i])]++);
    plan.tokens[p] = static_cast<std::int32_t>(i / plan.top_k);
    plan.slots[p] = static_cast<std::int32_t>(i % plan.top_k);
    plan.positions[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(p);
  }
  return plan;
}

}  // namespace perft::inline PERFT_ABI

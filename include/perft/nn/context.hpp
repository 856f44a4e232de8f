#pragma once
// ForwardContext: what all layers of one forward pass share. Auxiliary losses are collected here, not returned.

#include <cstdint>  // seeds
#include <memory>   // shared columns
#include <vector>   // columns

#include "perft/core/batch.hpp"
#include "perft/core/tensor.hpp"
#include "perft/ops/dropout.hpp"
#include "perft/ops/load_balance.hpp"
#include "perft/ops/moe_experts.hpp"
#include "perft/ops/rope.hpp"
#include "perft/ops/router_topk.hpp"

namespace perft::inline PERFT_ABI {

/// The choices of the routers of one layer, in the order they were asked, so that a recomputation takes them over.
struct RoutingTrace {
  std::vector<Tensor<std::int32_t>> ids;
  std::size_t next = 0;
};

/// `training` switches dropout on; which parameters are trained is their own business. Must outlive the tape.
template <ComputeType C>
struct ForwardContext {
  std::shared_ptr<const std::vector<Segment>> segments;
  std::shared_ptr<const TokenKeys> tokens;
  std::shared_ptr<const std::vector<std::uint8_t>> real;
  RopeTable<Param<C>> rope;

  bool training = false;
  std::uint64_t seed = 0;  // of dropout
  std::uint64_t step = 0;  // optimiser step: a new mask each
  HiddenPolicy hidden = HiddenPolicy::kSave;
  bool recompute_layers = false;  // keep only each layer's input

  std::shared_ptr<LoadBalance> base_balance;     // null: not collected
  std::shared_ptr<LoadBalance> adapter_balance;  // made by the first PERFT-R router if `collect_adapter`
  bool collect_adapter = false;

  std::int64_t layer = 0;         // set by the model
  RoutingTrace* trace = nullptr;  // of the layer being run: recorded the first time, replayed while recomputing
  bool recomputing = false;

  /// The dropout of `site` in the current layer; inactive outside training or with p = 0.
  Dropout dropout(double probability, std::uint64_t site) const {
    if (!training || probability == 0) {
      return {};
    }
    return {probability, Dropout::site_key(seed, step, static_cast<std::uint64_t>(layer), site), tokens};
  }

  /// Softmax + top-k with this pass's bookkeeping: load-balance statistics (counted once, not on recomputation) and the
  /// replay of recorded choices.
  Routing<Param<C>> route(const Variable<Param<C>>& logits, std::int64_t top_k, bool renormalise,
                          const std::shared_ptr<LoadBalance>& balance) {
    Tensor<std::int32_t> replay;
    if (recomputing) {
      check(trace != nullptr && trace->next < trace->ids.size(), "router: nothing recorded to replay in layer ", layer);
      replay = trace->ids[trace->next++];
    }
    Routing<Param<C>> routing = router_topk(logits, top_k, renormalise, replay, balance, real, !recomputing);
    if (trace != nullptr && !recomputing) {
      trace->ids.push_back(routing.ids);
    }
    return routing;
  }
};

/// A context for `batch`: positions become a RoPE table, the columns are shared by all layers.
template <ComputeType C>
ForwardContext<C> make_context(const Batch& batch, std::int64_t head_dim, double rope_theta) {
  ForwardContext<C> context;
  context.segments = std::make_shared<const std::vector<Segment>>(batch.segments);
  context.tokens = std::make_shared<const TokenKeys>(TokenKeys{batch.row, batch.column});
  context.real = std::make_shared<const std::vector<std::uint8_t>>(batch.real);
  context.rope = rope_table<Param<C>>(batch.positions, head_dim, rope_theta);
  return context;
}

}  // namespace perft::inline PERFT_ABI

#pragma once
// ForwardContext: what all layers of one forward pass share. Auxiliary losses are collected here, not returned.

#include <cstdint>  // seeds
#include <memory>   // shared columns
#include <utility>  // std::move
#include <vector>   // columns

#include "perft/core/batch.hpp"
#include "perft/core/error.hpp"
#include "perft/core/tensor.hpp"
#include "perft/ops/dropout.hpp"
#include "perft/ops/load_balance.hpp"
#include "perft/ops/moe_experts.hpp"
#include "perft/ops/rope.hpp"
#include "perft/ops/router_topk.hpp"

namespace perft::inline PERFT_ABI {

/// The choices of the routers of one layer, in the order they were asked, so that a recomputation takes them over.
template <class Device = Cpu>
struct RoutingTrace {
  std::vector<Tensor<std::int32_t, Device>> ids;
  std::size_t next = 0;
};

/// `training` switches dropout on; which parameters are trained is their own business. Must outlive the tape.
template <ComputeType C, class Device = Cpu>
struct ForwardContext {
  std::shared_ptr<const std::vector<Segment>> segments;
  std::shared_ptr<const TokenKeys> tokens;
  std::shared_ptr<const std::vector<std::uint8_t>> real;
  RopeTable<Param<C>, Device> rope;

  bool training = false;
  std::uint64_t seed = 0;  // of dropout
  std::uint64_t step = 0;  // optimiser step: a new mask each
  HiddenPolicy hidden = HiddenPolicy::kSave;
  bool recompute_layers = false;  // keep only each layer's input

  std::shared_ptr<LoadBalance> base_balance;     // null: not collected
  std::shared_ptr<LoadBalance> adapter_balance;  // made by the first PERFT-R router if `collect_adapter`
  bool collect_adapter = false;

  std::int64_t layer = 0;                 // set by the model
  RoutingTrace<Device>* trace = nullptr;  // of the layer being run: recorded the first time, replayed while recomputing
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
  Routing<Param<C>, Device> route(const Variable<Param<C>, Device>& logits, std::int64_t top_k, bool renormalise,
                                  const std::shared_ptr<LoadBalance>& balance) {
    Tensor<std::int32_t, Device> replay;
    if (recomputing) {
      check(trace != nullptr && trace->next < trace->ids.size(), "router: nothing recorded to replay in layer ", layer);
      replay = trace->ids[trace->next++];
    }
    Routing<Param<C>, Device> routing = router_topk(logits, top_k, renormalise, replay, balance, real, !recomputing);
    if (trace != nullptr && !recomputing) {
      trace->ids.push_back(routing.ids);
    }
    return routing;
  }
};

/// Throws ShapeError unless `batch` is what core/batch.hpp says: a number per token in every column, segments one after
/// another over all tokens with 0 <= keys <= queries, and a target for every loss row, which is one of the tokens.
inline void check_batch(const Batch& batch) {
  const std::int64_t tokens = batch.tokens();
  const auto one_per_token = [&](const char* column, std::size_t size) {
    check<ShapeError>(static_cast<std::int64_t>(size) == tokens, "batch: ", column, " has ", size,
                      " entries, expected one per token (", tokens, ")");
  };
  one_per_token("positions", batch.positions.size());
  one_per_token("real", batch.real.size());
  one_per_token("row", batch.row.size());
  one_per_token("column", batch.column.size());
  std::int64_t end = 0;
  for (std::size_t s = 0; s < batch.segments.size(); ++s) {
    const Segment& segment = batch.segments[s];
    check<ShapeError>(
        segment.begin == end && segment.queries >= 1 && segment.keys >= 0 && segment.keys <= segment.queries,
        "batch: segment ", s, " begins at ", segment.begin, " with ", segment.queries, " queries and ", segment.keys,
        " keys, expected to begin at ", end, " with at least 1 query and 0 … queries keys");
    end += segment.queries;
  }
  check<ShapeError>(end == tokens, "batch: the segments end at token ", end, ", expected all ", tokens);
  check<ShapeError>(batch.targets.size() == batch.loss_rows.size(), "batch: targets has ", batch.targets.size(),
                    " entries, expected one per loss row (", batch.loss_rows.size(), ")");
  for (std::size_t i = 0; i < batch.loss_rows.size(); ++i) {
    check<ShapeError>(batch.loss_rows[i] >= 0 && batch.loss_rows[i] < tokens, "batch: loss_rows[", i, "] is ",
                      batch.loss_rows[i], ", expected a token from 0 to ", tokens - 1);
  }
}

/// A context for `batch`: positions become a RoPE table, the columns are shared by all layers. Throws what
/// check_batch throws.
template <ComputeType C, class Device = Cpu>
ForwardContext<C, Device> make_context(const Batch& batch, std::int64_t head_dim, double rope_theta) {
  check_batch(batch);
  ForwardContext<C, Device> context;
  context.segments = std::make_shared<const std::vector<Segment>>(batch.segments);
  context.tokens = std::make_shared<const TokenKeys>(TokenKeys{batch.row, batch.column});
  context.real = std::make_shared<const std::vector<std::uint8_t>>(batch.real);
  RopeTable<Param<C>> rope = rope_table<Param<C>>(batch.positions, head_dim, rope_theta);
  context.rope = {to_device(std::move(rope.cosine), Device{}), to_device(std::move(rope.sine), Device{})};
  return context;
}

}  // namespace perft::inline PERFT_ABI

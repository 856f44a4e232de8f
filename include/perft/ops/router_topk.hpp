#pragma once
// Router: softmax over all experts, top-k, optional renormalisation; with its load-balancing statistics.

#include <algorithm>    // std::max
#include <cmath>        // infinities
#include <cstdint>      // ids
#include <limits>       // below every probability
#include <memory>       // nodes
#include <string_view>  // node name
#include <vector>       // real mask

#include "perft/autograd/variable.hpp"
#include "perft/core/parallel.hpp"
#include "perft/core/vec.hpp"
#include "perft/ops/load_balance.hpp"
#include "perft/ops/rows.hpp"

namespace perft::inline PERFT_ABI {

template <class P, class Device = Cpu>
struct RouterTopk {
  Tensor<P, Device> probabilities;   // [T, N] softmax of the logits
  Tensor<P, Device> weights;         // [T, K] of the chosen experts, in order of choice
  Tensor<std::int32_t, Device> ids;  // [T, K] the chosen experts, most probable first, ties to the lower index
};

/// logits [T, N] P -> probabilities, weights, ids. With `renormalise` the weights of a token sum to 1.
/// `replay`, if given, is the ids of an earlier pass over the same tokens: they are taken as they are, so a recomputed
/// router can never choose otherwise. Throws ValueError if K > N or K < 1.
/// Source: transformers OlmoeTopKRouter, MixtralTopKRouter (softmax in fp32 over all N, then top-k, then renormalise).
/// In bf16 transformers then casts OLMoE's weights to the activation type; here they stay Param in both families: they
/// multiply expert outputs in Param<C>, and their gradient goes back through the softmax unrounded.
template <class P>
RouterTopk<P> router_topk_forward(const Tensor<P>& logits, std::int64_t top_k, bool renormalise,
                                  const Tensor<std::int32_t>& replay = {}) {
  check<ShapeError>(logits.rank() == 2 && logits.contiguous(), "router_topk: logits are ", logits.shape(),
                    ", expected a contiguous [T, N]");
  const std::int64_t tokens = logits.size(0);
  const std::int64_t experts = logits.size(1);
  check<ValueError>(top_k >= 1 && top_k <= experts, "router_topk: top-k ", top_k, " of ", experts, " experts");
  check<ShapeError>(!replay.defined() || replay.shape() == Shape{tokens, top_k}, "router_topk: replayed ids are ",
                    replay.shape(), ", expected [", tokens, ", ", top_k, "]");
  RouterTopk<P> out{Tensor<P>::empty(logits.shape()), Tensor<P>::empty({tokens, top_k}),
                    replay.defined() ? replay : Tensor<std::int32_t>::empty({tokens, top_k})};
  P* probabilities = out.probabilities.mutable_data();
  P* weights = out.weights.mutable_data();
  std::int32_t* chosen = replay.defined() ? nullptr : out.ids.mutable_data();
  parallel_for(tokens, row_grain(experts * 4), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const P* row = logits.data() + t * experts;
      P* p = probabilities + t * experts;
      const P total = vec::exp_sum(row, vec::max(row, experts), p, experts);
      vec::scale(P{1} / total, p, experts);
      if (chosen != nullptr) {
        // Insertion into the K best so far: K is small, and > keeps the lower index first among equals.
        std::int32_t* ids = chosen + t * top_k;
        std::int64_t filled = 0;
        for (std::int64_t e = 0; e < experts; ++e) {
          std::int64_t at = filled;
          while (at > 0 && (p[e] > p[ids[at - 1]] || std::isnan(p[ids[at - 1]]))) {
            --at;
          }
          if (at < top_k) {
            filled = std::min(filled + 1, top_k);
            for (std::int64_t s = filled - 1; s > at; --s) {
              ids[s] = ids[s - 1];
            }
            ids[at] = static_cast<std::int32_t>(e);
          }
        }
      }
      P sum = 0;
      for (std::int64_t s = 0; s < top_k; ++s) {
        weights[t * top_k + s] = p[out.ids.data()[t * top_k + s]];
        sum += weights[t * top_k + s];
      }
      if (renormalise) {
        for (std::int64_t s = 0; s < top_k; ++s) {
          weights[t * top_k + s] /= sum;
        }
      }
    }
  });
  return out;
}

/// dlogits [T, N] from dweights [T, K] (may be undefined: only the auxiliary loss) and the auxiliary loss's per-expert
/// gradient on real tokens. `sums` of chosen probabilities are recomputed.
/// Throws ShapeError if `real` is not of T tokens.
/// w_s = p_s / Σp  (renormalise)  =>  dp_s = (dw_s − Σ_j dw_j w_j) / Σp;   p = softmax(l)  =>  dl = p ⊙ (dp − <p, dp>).
template <class P>
Tensor<P> router_topk_backward(const Tensor<P>& dweights, const RouterTopk<P>& forward, bool renormalise,
                               const LoadBalance* balance, std::span<const std::uint8_t> real) {
  const std::int64_t tokens = forward.probabilities.size(0);
  const std::int64_t experts = forward.probabilities.size(1);
  const std::int64_t top_k = forward.ids.size(1);
  check<ShapeError>(static_cast<std::int64_t>(real.size()) == tokens, "router_topk: the mask of real tokens has ",
                    real.size(), " entries, expected ", tokens);
  std::vector<P> aux(static_cast<std::size_t>(experts));
  if (balance != nullptr && balance->has_gradient()) {
    for (std::int64_t e = 0; e < experts; ++e) {
      aux[static_cast<std::size_t>(e)] = static_cast<P>(balance->gradient(e));
    }
  }
  Tensor<P> dlogits = Tensor<P>::empty(forward.probabilities.shape());
  P* out = dlogits.mutable_data();
  parallel_for(tokens, row_grain(experts * 4), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const P* p = forward.probabilities.data() + t * experts;
      P* dp = out + t * experts;
      const bool counts = real[static_cast<std::size_t>(t)] != 0;
      for (std::int64_t e = 0; e < experts; ++e) {
        dp[e] = counts ? aux[static_cast<std::size_t>(e)] : P{0};
      }
      if (dweights.defined()) {
        const P* dw = dweights.data() + t * top_k;
        const std::int32_t* ids = forward.ids.data() + t * top_k;
        P sum = 1;
        P mean = 0;
        if (renormalise) {
          sum = 0;
          for (std::int64_t s = 0; s < top_k; ++s) {
            sum += p[ids[s]];
            mean += dw[s] * forward.weights.data()[t * top_k + s];
          }
        }
        for (std::int64_t s = 0; s < top_k; ++s) {
          dp[ids[s]] += (dw[s] - mean) / sum;
        }
      }
      const P inner = vec::dot(p, dp, experts);
      for (std::int64_t e = 0; e < experts; ++e) {
        dp[e] = p[e] * (dp[e] - inner);
      }
    }
  });
  return dlogits;
}

/// Saves probabilities, weights (only to renormalise) and ids. Runs even if no gradient reaches the weights: the
/// auxiliary loss may still send one.
template <class P, class Device = Cpu>
class RouterTopkNode final : public Node {
 public:
  RouterTopkNode(Edge logits_edge, Edge weights_edge, RouterTopk<P, Device> forward, bool renormalise,
                 std::shared_ptr<const LoadBalance> balance, std::shared_ptr<const std::vector<std::uint8_t>> real)
      : logits_edge_(logits_edge),
        weights_edge_(weights_edge),
        forward_(std::move(forward)),
        renormalise_(renormalise),
        balance_(std::move(balance)),
        real_(std::move(real)) {
    if (!renormalise_) {
      forward_.weights = {};
    }
  }

  std::string_view name() const override { return "router_topk"; }

  std::size_t saved_bytes() const override {
    return forward_.probabilities.bytes() + forward_.weights.bytes() + forward_.ids.bytes();
  }

  void backward(Tape& tape) override {
    const Tensor<P, Device> dweights = tape.take_gradient<P, Device>(weights_edge_);
    if (dweights.defined() || (balance_ && balance_->has_gradient())) {
      tape.add_gradient(logits_edge_, router_topk_backward(dweights, forward_, renormalise_, balance_.get(), *real_));
    }
  }

 private:
  Edge logits_edge_;
  Edge weights_edge_;
  RouterTopk<P, Device> forward_;
  bool renormalise_;
  std::shared_ptr<const LoadBalance> balance_;
  std::shared_ptr<const std::vector<std::uint8_t>> real_;
};

/// What the rest of the block needs of a routing decision.
template <class P, class Device = Cpu>
struct Routing {
  Variable<P, Device> weights;       // [T, K]
  Tensor<std::int32_t, Device> ids;  // [T, K]
};

/// Differentiable router_topk_forward. `balance` (may be null) is what the auxiliary loss of this forward pass is read
/// from at backward time; the caller adds this layer's statistics to it (not on a recomputation).
template <class P, class Device>
Routing<P, Device> router_topk(const Variable<P, Device>& logits, std::int64_t top_k, bool renormalise,
                               const Tensor<std::int32_t, Device>& replay, std::shared_ptr<LoadBalance> balance,
                               std::shared_ptr<const std::vector<std::uint8_t>> real, bool count) {
  RouterTopk<P, Device> out = router_topk_forward(logits.value(), top_k, renormalise, replay);
  if (balance && count) {
    add_routing(*balance, out.probabilities, out.ids, *real);
  }
  Routing<P, Device> routing;
  routing.ids = out.ids;
  routing.weights = differentiable(out.weights, logits.needs_gradient(), [&](Edge weights_edge) {
    return std::make_unique<RouterTopkNode<P, Device>>(logits.edge(), weights_edge, out, renormalise, balance, real);
  });
  return routing;
}

}  // namespace perft::inline PERFT_ABI

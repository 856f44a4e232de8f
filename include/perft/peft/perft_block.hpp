#pragma once
// PERFT: y = MoE(x) + Σ_j w_j(x) Δ_j(x). The four variants differ in nothing but which Δ_j a token goes through, and w.

#include <memory>    // the wrapped block
#include <optional>  // no seed
#include <string>    // paths
#include <utility>   // std::move

#include "perft/nn/slots.hpp"
#include "perft/ops/add.hpp"
#include "perft/ops/columns.hpp"
#include "perft/ops/linear.hpp"
#include "perft/ops/low_rank.hpp"
#include "perft/peft/bank.hpp"

namespace perft::inline PERFT_ABI {

/// | variant | experts | plan                      | weights |
/// | S       | 1       | always it                 | 1       |
/// | D       | M       | all of them               | 1       |
/// | R       | M       | top-k of its own router G̃ | G̃'s     |
/// | E       | N       | the base router's own     | G's     |
/// (E: Σ G (E + Δ) = MoE + Σ G Δ.) Source: PERFT (arXiv 2411.08212) eq. 3–7.
template <ComputeType C, class Device = Cpu>
class PerftBlock final : public MoeBlock<C, Device> {
 public:
  using P = Param<C>;
  static constexpr std::uint64_t kDropoutSite = 1;

  /// Throws ValueError if a block of this shape cannot carry the adapter.
  static void check_fits(const AdapterSpec& spec, const MoeShape& shape) {
    check<ValueError>(spec.method != Method::kPerftE || spec.experts == 0 || spec.experts == shape.experts,
                      "perft-e: ", spec.experts, " experts, expected the base's ", shape.experts, " (or leave it out)");
    check<ValueError>(spec.router_weights == RouterWeights::kOwn || spec.top_k <= shape.top_k,
                      "perft-r: router weights authors-olmoe take the base's first ", spec.top_k,
                      " weights, but its top-k is ", shape.top_k);
  }

  /// `path` is the block's ("model.layers.3.mlp"); parameters are named path + ".perft.…". `initializer_range` is the
  /// standard deviation of the router's initial values. `base` is taken last: if anything throws, the caller still has
  /// it.
  PerftBlock(std::unique_ptr<MoeBlock<C, Device>>& base, const std::string& path, const AdapterSpec& spec,
             std::int64_t layer, double initializer_range, std::optional<std::uint64_t> seed)
      : spec_(spec) {
    const MoeShape shape = base->shape();
    check_fits(spec, shape);
    bank_.form = spec.delta;
    bank_.in = bank_.out = shape.width;
    bank_.alpha = spec.effective_alpha();
    const std::int64_t experts = spec.experts_beside(shape.experts);
    for (std::int64_t j = 0; j < experts; ++j) {
      bank_.experts.push_back(make_low_rank_expert<P, Device>(path + ".perft.experts." + std::to_string(j) + ".", spec,
                                                              spec.rank_of(layer, j), shape.width, shape.width, seed));
    }
    if (spec.method == Method::kPerftR) {
      router_ = Weight<P, Device>(path + ".perft.router.weight",
                                  to_device(Tensor<P>::zeros({experts, shape.width}), Device{}));
      if (seed) {
        fill_normal(*router_.parameter(), initializer_range, *seed);
      }
      router_.parameter()->set_trainable(true);
    }
    base_ = std::move(base);
  }

  MoeOutput<C, Device> forward(const Variable<C, Device>& x, ForwardContext<C, Device>& context) override {
    MoeOutput<C, Device> out = base_->forward(x, context);
    Tensor<std::int32_t, Device> ids;
    Variable<P, Device> weights;
    if (spec_.method == Method::kPerftE) {
      ids = out.routing.ids;
      weights = out.routing.weights;
    } else if (spec_.method == Method::kPerftR) {
      if (context.collect_adapter && !context.adapter_balance) {
        context.adapter_balance = std::make_shared<LoadBalance>(bank_.size());
      }
      const Routing<P, Device> own = context.route(linear<P>(x, router_, Precision::kParam), spec_.top_k,
                                                   base_->shape().renormalise, context.adapter_balance);
      ids = own.ids;
      weights =
          spec_.router_weights == RouterWeights::kOwn ? own.weights : first_columns(out.routing.weights, spec_.top_k);
    }
    const Variable<P, Device> delta = low_rank(x, ids, weights, bank_, context.dropout(spec_.dropout, kDropoutSite));
    out.y = add(out.y, delta);
    return out;
  }

  MoeShape shape() const override { return base_->shape(); }

  void visit(const std::string& path, Visitor<C, Device>& visitor) override {
    base_->visit(path, visitor);
    visit_bank<C, Device>(bank_, visitor);
    if (router_.parameter() != nullptr) {
      visitor.adapter_weight(router_);
    }
  }

  bool adapted() const override { return true; }

  std::unique_ptr<MoeBlock<C, Device>> release_base() override { return std::move(base_); }

 private:
  std::unique_ptr<MoeBlock<C, Device>> base_;
  AdapterSpec spec_;
  LowRankBank<P, Device> bank_;
  Weight<P, Device> router_;
};

}  // namespace perft::inline PERFT_ABI

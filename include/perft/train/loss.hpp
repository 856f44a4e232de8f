#pragma once
// One forward (and backward) pass over a micro-batch: the losses, and gradients added into the trainable parameters.

#include <cmath>    // std::isfinite
#include <cstdint>  // seeds
#include <utility>  // std::move
#include <vector>   // per-target losses

#include "perft/core/batch.hpp"
#include "perft/nn/context.hpp"
#include "perft/ops/cross_entropy.hpp"
#include "perft/train/router_use.hpp"

namespace perft::inline PERFT_ABI {

struct LossOptions {
  double lm_scale = 0;    // 1 / targets of the whole accumulated batch
  double aux_weight = 0;  // coefficient · this micro-batch's share of the batch's real tokens
  bool collect_aux = true;
  bool training = false;  // dropout
  std::uint64_t seed = 0;
  std::uint64_t step = 0;
  HiddenPolicy hidden = HiddenPolicy::kSave;
  bool recompute_layers = false;
};

struct Losses {
  double lm = 0;                // lm_scale · Σ nll
  double aux = 0;               // of the base routers, not weighted
  double adapter_aux = 0;       // of the PERFT-R routers, not weighted
  std::size_t saved_bytes = 0;  // activations kept for backward
  std::vector<double> nll;      // of each target, without lm_scale; evaluate_loss only
  RouterUse base_use;           // of the base routers; empty unless aux is collected
  RouterUse adapter_use;        // of the PERFT-R routers
};

namespace detail {

template <ComputeType C, class Device = Cpu, class Model>
ForwardContext<C, Device> loss_context(Model& model, const Batch& batch, const LossOptions& options) {
  ForwardContext<C, Device> context = model.context(batch);
  context.training = options.training;
  context.seed = options.seed;
  context.step = options.step;
  context.hidden = options.hidden;
  context.recompute_layers = options.recompute_layers;
  if (options.collect_aux) {
    context.base_balance = std::make_shared<LoadBalance>(model.config.num_experts);
    context.collect_adapter = true;
  }
  return context;
}

inline void read_aux(const LoadBalance* base, const LoadBalance* adapter, Losses& losses) {
  losses.aux = base != nullptr ? base->value() : 0;
  losses.adapter_aux = adapter != nullptr ? adapter->value() : 0;
  losses.base_use.add(base);
  losses.adapter_use.add(adapter);
}

}  // namespace detail

/// What the losses do with the final hidden states [T, D] unless they are told otherwise.
struct Unused {
  template <class Hidden>
  void operator()(const Hidden&) const {}
};

/// Losses only; records nothing. `on_hidden` is shown the final hidden states [T, D] before the loss: for whoever needs
/// logits too.
template <ComputeType C, class Device = Cpu, class Model, class OnHidden = Unused>
Losses evaluate_loss(Model& model, const Batch& batch, const LossOptions& options, const OnHidden& on_hidden = {}) {
  NoRecording pause;
  ForwardContext<C, Device> context = detail::loss_context<C, Device>(model, batch, options);
  const Variable<C, Device> h = model.forward(batch, context);
  on_hidden(h.value());
  Losses losses;
  CrossEntropyOutput<C, Device> scored =
      cross_entropy_forward(h.value(), model.head(), {batch.loss_rows, batch.targets}, options.lm_scale, false);
  losses.lm = scored.loss;
  losses.nll = std::move(scored.nll);
  detail::read_aux(context.base_balance.get(), context.adapter_balance.get(), losses);
  return losses;
}

/// d(lm + aux_weight · (aux + adapter_aux)) is added into the gradients of all trainable parameters.
/// Throws NonFiniteError if the loss is not finite; nothing has been added then. `on_hidden` as evaluate_loss.
template <ComputeType C, class Device = Cpu, class Model, class OnHidden = Unused>
Losses accumulate_gradients(Model& model, const Batch& batch, const LossOptions& options,
                            const OnHidden& on_hidden = {}) {
  using P = Param<C>;
  Tape tape;
  ForwardContext<C, Device> context = detail::loss_context<C, Device>(model, batch, options);
  Losses losses;
  Recording recording(tape);
  const Variable<C, Device> h = model.forward(batch, context);
  on_hidden(h.value());
  const Variable<P, Device> lm =
      cross_entropy(h, model.head(), {batch.loss_rows, batch.targets}, options.lm_scale, &losses.lm);
  detail::read_aux(context.base_balance.get(), context.adapter_balance.get(), losses);
  check<NonFiniteError>(std::isfinite(losses.lm) && std::isfinite(losses.aux) && std::isfinite(losses.adapter_aux),
                        "the loss is not finite (lm ", losses.lm, ", aux ", losses.aux, ", adapter aux ",
                        losses.adapter_aux, ")");
  for (LoadBalance* balance : {context.base_balance.get(), context.adapter_balance.get()}) {
    if (balance != nullptr) {
      balance->set_weight(options.aux_weight);
    }
  }
  losses.saved_bytes = tape.saved_bytes();
  if (lm.needs_gradient()) {
    tape.add_gradient(lm.edge(), to_device(Tensor<P>::full({1}, P{1}), Device{}));
  }
  tape.backward();
  return losses;
}

}  // namespace perft::inline PERFT_ABI

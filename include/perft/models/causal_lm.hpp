#pragma once
// The causal language model that OLMoE and Mixtral both are; what differs is in ModelConfig and in the tensors' names.

#include <cmath>     // std::isfinite
#include <memory>    // layers
#include <optional>  // no fault found
#include <string>    // paths
#include <vector>    // layers

#include "perft/autograd/checkpoint.hpp"
#include "perft/models/causal_lm_fwd.hpp"
#include "perft/models/config.hpp"
#include "perft/nn/decoder_layer.hpp"
#include "perft/ops/cross_entropy.hpp"
#include "perft/ops/embedding.hpp"

namespace perft::inline PERFT_ABI {

/// Embedding, decoder layers, final norm, head. Built by load_model (models/load_model.hpp).
template <ComputeType C, class Device>
class CausalLm {
 public:
  using P = Param<C>;

  ModelConfig config;
  std::unique_ptr<Weight<P, Device>> embed_tokens;
  std::vector<std::unique_ptr<DecoderLayer<C, Device>>> layers;
  Parameter<P, Device> norm;
  std::unique_ptr<Weight<P, Device>> lm_head;  // null: tied to embed_tokens

  const Weight<P, Device>& head() const { return lm_head ? *lm_head : *embed_tokens; }

  ForwardContext<C, Device> context(const Batch& batch) const {
    return make_context<C, Device>(batch, config.head_dim, config.rope_theta);
  }

  /// Final hidden states [T, D] (after the last norm) of the batch's tokens. `forward_context` is context(batch) with
  /// its switches set, and must outlive the tape.
  Variable<C, Device> forward(const Batch& batch, ForwardContext<C, Device>& forward_context) {
    const std::int32_t padding = static_cast<std::int32_t>(config.pad_token_id.value_or(-1));
    Variable<C, Device> x = embedding<C>(batch.ids, *embed_tokens, padding);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      if (!forward_context.recompute_layers) {
        forward_context.layer = static_cast<std::int64_t>(i);
        x = layers[i]->forward(x, forward_context);
        continue;
      }
      auto trace = std::make_shared<RoutingTrace<Device>>();
      x = checkpoint(x, trains(i),
                     [this, i, trace, &forward_context](const Variable<C, Device>& input, bool recomputing) {
                       forward_context.layer = static_cast<std::int64_t>(i);
                       forward_context.trace = trace.get();
                       forward_context.recomputing = recomputing;
                       trace->next = 0;
                       Variable<C, Device> output = layers[i]->forward(input, forward_context);
                       forward_context.trace = nullptr;
                       forward_context.recomputing = false;
                       return output;
                     });
    }
    return rms_norm(x, norm, config.rms_norm_eps);
  }

  /// Logits [rows, V] of all given hidden states, in Param. For scoring and decoding; training never forms them.
  Tensor<P, Device> logits(const Tensor<C, Device>& hidden) const { return linear_forward<P>(hidden, head()); }

  /// Where a non-finite number first appears in this batch's hidden states: "the embedding", "layer 3", "the final
  /// norm"; nothing if all are finite (then it is the head's). Runs the layers one by one; for error messages.
  std::optional<std::string> first_non_finite(const Batch& batch) {
    NoRecording pause;
    ForwardContext<C, Device> forward_context = context(batch);
    Variable<C, Device> x = embedding<C>(batch.ids, *embed_tokens);
    if (!all_finite(x.value())) {
      return "the embedding";
    }
    for (std::size_t i = 0; i < layers.size(); ++i) {
      forward_context.layer = static_cast<std::int64_t>(i);
      x = layers[i]->forward(x, forward_context);
      if (!all_finite(x.value())) {
        return "layer " + std::to_string(i);
      }
    }
    if (!all_finite(rms_norm(x, norm, config.rms_norm_eps).value())) {
      return "the final norm";
    }
    return std::nullopt;
  }

  /// Lists every member once, in hub order.
  void visit(Visitor<C, Device>& visitor) {
    visitor.weight(*embed_tokens);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      layers[i]->visit("model.layers." + std::to_string(i), visitor);
    }
    visitor.parameter(norm);
    if (lm_head) {
      visitor.weight(*lm_head);
    }
  }

 private:
  static bool all_finite(const Tensor<C, Device>& x) {
    const Tensor<C> values = to_host(x);
    for (const C value : values.span()) {
      if (!std::isfinite(static_cast<P>(value))) {
        return false;
      }
    }
    return true;
  }

  bool trains(std::size_t i) {
    struct AnyTrained final : Visitor<C, Device> {
      bool found = false;

      void weight(Weight<P, Device>& w) override { found = found || w.trained() != nullptr; }

      void parameter(Parameter<P, Device>& p) override { found = found || p.trainable(); }
    } any;

    layers[i]->visit({}, any);
    return any.found;
  }
};

}  // namespace perft::inline PERFT_ABI

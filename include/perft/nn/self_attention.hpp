#pragma once
// The attention half of a decoder layer: projections, OLMoE's q/k norm and clip, RoPE, attention, output projection.

#include <memory>    // slots
#include <optional>  // what a family lacks
#include <string>    // paths
#include <utility>   // std::move

#include "perft/nn/slots.hpp"
#include "perft/ops/attention.hpp"
#include "perft/ops/clamp.hpp"
#include "perft/ops/rms_norm.hpp"

namespace perft::inline PERFT_ABI {

/// x [T, D] -> [T, D]. The q/k norm, if present, runs over the whole projected vector, before the split into heads.
/// Source: transformers OlmoeAttention, MixtralAttention.
template <ComputeType C>
struct SelfAttention {
  AttentionShape shape;
  double eps = 0;
  std::optional<double> clip;
  std::unique_ptr<LinearSlot<C>> q_proj, k_proj, v_proj, o_proj;
  std::unique_ptr<Parameter<Param<C>>> q_norm, k_norm;  // null: no norm

  Variable<C> forward(const Variable<C>& x, ForwardContext<C>& context) {
    Variable<C> q = q_proj->forward(x, context);
    Variable<C> k = k_proj->forward(x, context);
    Variable<C> v = v_proj->forward(x, context);
    if (q_norm) {
      q = rms_norm(q, *q_norm, eps);
      k = rms_norm(k, *k_norm, eps);
    }
    if (clip) {
      q = clamp(q, *clip);
      k = clamp(k, *clip);
      v = clamp(v, *clip);
    }
    q = rope(q, context.rope);
    k = rope(k, context.rope);
    return o_proj->forward(attention(q, k, v, context.segments, shape), context);
  }

  void visit(const std::string& path, Visitor<C>& visitor) {
    struct Named {
      const char* name;
      std::unique_ptr<LinearSlot<C>>& slot;
    };

    for (Named named :
         {Named{"q_proj", q_proj}, Named{"k_proj", k_proj}, Named{"v_proj", v_proj}, Named{"o_proj", o_proj}}) {
      visitor.linear_slot(path + "." + named.name, named.slot);
      named.slot->visit(visitor);
    }
    if (q_norm) {
      visitor.parameter(*q_norm);
      visitor.parameter(*k_norm);
    }
  }
};

}  // namespace perft::inline PERFT_ABI

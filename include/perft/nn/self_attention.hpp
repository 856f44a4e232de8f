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
template <ComputeType C, class Device = Cpu>
struct SelfAttention {
  AttentionShape shape;
  double eps = 0;
  std::optional<double> clip;
  std::unique_ptr<LinearSlot<C, Device>> q_proj, k_proj, v_proj, o_proj;
  std::unique_ptr<Parameter<Param<C>, Device>> q_norm, k_norm;  // null: no norm

  Variable<C, Device> forward(const Variable<C, Device>& x, ForwardContext<C, Device>& context) {
    const Variable<C, Device> q_projected = q_proj->forward(x, context);
    const Variable<C, Device> k_projected = k_proj->forward(x, context);
    Variable<C, Device> v = v_proj->forward(x, context);
    const Variable<C, Device> q = prepare(q_projected, q_norm.get(), context.rope);
    const Variable<C, Device> k = prepare(k_projected, k_norm.get(), context.rope);
    if (clip) {
      v = clamp(v, *clip);
    }
    return o_proj->forward(attention(q, k, v, context.segments, shape), context);
  }

  void visit(const std::string& path, Visitor<C, Device>& visitor) {
    struct Named {
      const char* name;
      std::unique_ptr<LinearSlot<C, Device>>& slot;
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

 private:
  /// A projection on its way into attention: q/k norm, clip, RoPE.
  Variable<C, Device> prepare(const Variable<C, Device>& projected, Parameter<Param<C>, Device>* norm,
                              const RopeTable<Param<C>, Device>& table) const {
    Variable<C, Device> x = norm != nullptr ? rms_norm(projected, *norm, eps) : projected;
    return rope(clip ? clamp(x, *clip) : x, table);
  }
};

}  // namespace perft::inline PERFT_ABI

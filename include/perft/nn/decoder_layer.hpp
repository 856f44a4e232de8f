#pragma once
// One pre-norm decoder layer: x + attention(norm x), then x + MoE(norm x).

#include <memory>  // slots
#include <string>  // paths

#include "perft/nn/self_attention.hpp"
#include "perft/nn/slots.hpp"
#include "perft/ops/add.hpp"
#include "perft/ops/rms_norm.hpp"

namespace perft::inline PERFT_ABI {

/// x [T, D] -> [T, D]. Source: transformers OlmoeDecoderLayer, MixtralDecoderLayer.
template <ComputeType C, class Device = Cpu>
struct DecoderLayer {
  double eps = 0;
  Parameter<Param<C>, Device> input_norm, post_attention_norm;
  SelfAttention<C, Device> self_attn;
  std::unique_ptr<MoeBlock<C, Device>> mlp;

  Variable<C, Device> forward(const Variable<C, Device>& x, ForwardContext<C, Device>& context) {
    const Variable<C, Device> middle = add(x, self_attn.forward(rms_norm(x, input_norm, eps), context));
    return add(middle, mlp->forward(rms_norm(middle, post_attention_norm, eps), context).y);
  }

  void visit(const std::string& path, Visitor<C, Device>& visitor) {
    visitor.parameter(input_norm);
    self_attn.visit(path + ".self_attn", visitor);
    visitor.parameter(post_attention_norm);
    visitor.moe_slot(path + ".mlp", mlp);
    mlp->visit(path + ".mlp", visitor);
  }
};

}  // namespace perft::inline PERFT_ABI

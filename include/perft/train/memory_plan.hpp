#pragma once
// How much memory a micro-batch takes, and how many rows and which recomputation fit a budget.

#include <algorithm>  // std::max, std::min
#include <cstdint>    // sizes

#include "perft/ops/cross_entropy.hpp"  // chunks
#include "perft/ops/moe_experts.hpp"    // HiddenPolicy

namespace perft::inline PERFT_ABI {

/// The sizes that decide (letters: docs/notation.md). Bytes of a compute-type and of a parameter-type number.
struct ActivationShape {
  std::int64_t width = 0;     // D
  std::int64_t q_width = 0;   // H · d
  std::int64_t kv_width = 0;  // H_kv · d
  std::int64_t heads = 0;     // H
  std::int64_t inner = 0;     // F
  std::int64_t experts = 0;   // N
  std::int64_t top_k = 0;     // K
  std::int64_t layers = 0;    // L
  std::int64_t vocab = 0;     // V
  std::int64_t compute_bytes = 2;
  std::int64_t param_bytes = 4;
  bool attention_trained = false;  // LoRA on attention, or everything: the first layer is differentiated whole
  bool clipped = false;            // clip_qkv: v before and after
  bool base_trained = false;       // everything: a layer's dW take turns with what else differentiating it needs
  std::int64_t adapter = 0;        // AdapterSpec::kept_per_token
};

/// The sizes of a model (ModelConfig) computing in types of these sizes, without an adapter.
template <class Config>
ActivationShape activation_shape(const Config& config, std::int64_t compute_bytes, std::int64_t param_bytes) {
  ActivationShape shape;
  shape.width = config.hidden_size;
  shape.q_width = config.num_attention_heads * config.head_dim;
  shape.kv_width = config.num_key_value_heads * config.head_dim;
  shape.heads = config.num_attention_heads;
  shape.inner = config.intermediate_size;
  shape.experts = config.num_experts;
  shape.top_k = config.num_experts_per_tok;
  shape.layers = config.num_hidden_layers;
  shape.vocab = config.vocab_size;
  shape.compute_bytes = compute_bytes;
  shape.param_bytes = param_bytes;
  shape.clipped = config.clip_qkv.has_value();
  return shape;
}

/// What is given up to save memory, from nothing to everything but the layers' inputs.
enum class Recompute { kNone, kGateUp, kLayer };

/// Bytes kept per token and layer between forward and backward: inputs of both norms (their results are formed again),
/// q and k (or the q/k norm's inputs), v, attention output and its log-sum-exp, gate and up pre-activations,
/// routing, the adapter's own.
inline std::int64_t saved_bytes_per_token(const ActivationShape& s, Recompute recompute) {
  if (recompute == Recompute::kLayer) {
    return s.width * s.compute_bytes;
  }
  const std::int64_t hidden = recompute == Recompute::kNone ? 2 * s.top_k * s.inner * s.compute_bytes : 0;
  const std::int64_t kv_widths = s.clipped ? 3 : 2;
  return (2 * s.width + 2 * s.q_width + kv_widths * s.kv_width) * s.compute_bytes + hidden +
         (s.heads + s.experts + s.top_k + s.adapter + 4) * s.param_bytes + 16 * s.top_k;
}

/// Peak bytes of activations of a micro-batch of `tokens`: what is kept, and the larger of what the loss needs on top
/// (a chunk of logits, the hidden states and their gradient) and what differentiating one layer does (expert outputs'
/// gradient by slot, a few rows per token, the norm's result and what else is recomputed). With every layer's adapters
/// on its MoE block, the first layer keeps no more than that block's input: nothing below it is differentiated.
inline std::int64_t activation_bytes(const ActivationShape& s, std::int64_t tokens, Recompute recompute) {
  const std::int64_t per_layer = saved_bytes_per_token(s, recompute);
  const std::int64_t kept = recompute == Recompute::kLayer || s.attention_trained
                                ? s.layers * per_layer
                                : (s.layers - 1) * per_layer + s.width * s.compute_bytes + s.adapter * s.param_bytes;
  const std::int64_t chunk = cross_entropy_chunk(s.vocab, s.param_bytes);
  const std::int64_t loss = std::min(chunk, tokens) * (s.vocab + s.width) * s.param_bytes +
                            tokens * s.width * (s.param_bytes + s.compute_bytes);
  // Slots: the experts' gradient by (token, slot), or of the adapter dz and the coefficients of dA and dB, each like z.
  const std::int64_t slots = std::max(s.top_k * s.width, 2 * s.adapter);
  std::int64_t layer = (slots + 4 * s.width) * s.param_bytes + s.width * s.compute_bytes;
  if (recompute == Recompute::kGateUp) {
    layer += 2 * s.top_k * s.inner * s.compute_bytes;
  } else if (recompute == Recompute::kLayer) {
    layer += saved_bytes_per_token(s, Recompute::kNone);
  }
  if (s.base_trained) {
    // Of one layer's experts the activation, and it times its weight (dW of down) where that is wider than the gradient
    // by slot, which takes its place.
    layer += s.top_k * (s.inner * s.compute_bytes + std::max<std::int64_t>(0, s.inner - s.width) * s.param_bytes);
  }
  return tokens * kept + std::max(loss, tokens * layer);
}

/// Bytes of a whole fine-tuning process at its peak, by part.
struct ProcessMemory {
  std::int64_t mapped = 0;       // base weights in their files: the system may drop and read them again
  std::int64_t parameters = 0;   // trained ones; with the whole base trained, its fp32 masters
  std::int64_t gradients = 0;    // one per trained parameter
  std::int64_t moments = 0;      // AdamW's two
  std::int64_t activations = 0;  // activation_bytes, and what the pool keeps beside them
  std::int64_t workspace = 0;    // packed operands of matrix products
  std::int64_t program = 0;      // code's data, threads, tokenizer, token ids

  /// What cannot be dropped.
  std::int64_t anonymous() const { return parameters + gradients + moments + activations + workspace + program; }
};

/// The peak of a process that trains `trained` parameters with micro-batches of `tokens` tokens on `threads` threads.
/// `checkpoint_bytes`: of the base's files; `tokenizer_bytes`: of tokenizer.json. The rows' ids (8 bytes a token) are
/// not known from headers and come on top.
inline ProcessMemory plan_process(const ActivationShape& s, std::int64_t tokens, Recompute recompute,
                                  std::int64_t trained, std::int64_t checkpoint_bytes, std::int64_t tokenizer_bytes,
                                  std::int64_t threads) {
  constexpr std::int64_t mega = 1 << 20;
  ProcessMemory plan;
  plan.mapped = s.base_trained ? 2 * checkpoint_bytes : checkpoint_bytes;  // a saved model is read back and compared
  plan.parameters = plan.gradients = trained * s.param_bytes;
  plan.moments = 2 * plan.parameters;
  // MemoryPool: up to 1/32 more than was ever in use, and size classes above what was asked for (half of 1/8 on
  // average, of which a block's untouched end takes no memory).
  const std::int64_t activations = activation_bytes(s, tokens, recompute);
  plan.activations = activations + activations / 16;
  // One packed side of the experts' products, in waves of 32 MiB at most, and a few blocks per thread.
  const std::int64_t packed = tokens * s.top_k * std::max(s.width, s.inner) * s.compute_bytes;
  plan.workspace = std::min<std::int64_t>(packed, 32 * mega) + 2 * mega * threads;
  // A parsed tokenizer.json and the tables made of it: about 7 times its text.
  plan.program = 12 * mega + 7 * tokenizer_bytes;
  return plan;
}

/// Floating-point operations of a training step per token: 2 per multiply-add of every product. Forward and the
/// gradient of every product's input; the weights' gradients too if the base is trained; what is computed again.
/// `row_tokens`: of a row, for attention (a token sees half of it on average). Adapters are left out.
inline double training_flops(const ActivationShape& s, double row_tokens, Recompute recompute) {
  const auto product = [](std::int64_t in, std::int64_t out) { return 2.0 * static_cast<double>(in * out); };
  const double experts = static_cast<double>(s.top_k) * 3 * product(s.width, s.inner);
  const double attention = product(s.width, s.q_width) * 2 + product(s.width, s.kv_width) * 2;
  const double scores = 2 * product(s.q_width, 1) * row_tokens / 2;
  const double layer = experts + attention + product(s.width, s.experts);
  const double head = product(s.width, s.vocab);
  const auto layers = static_cast<double>(s.layers);
  double flops = (layers * layer + head) * (s.base_trained ? 3 : 2) + layers * scores * 3.5;
  if (recompute == Recompute::kGateUp) {
    flops += layers * experts * 2 / 3;
  } else if (recompute == Recompute::kLayer) {
    flops += layers * (layer + scores);
  }
  return flops;
}

struct MicroBatchPlan {
  std::int64_t rows = 1;
  Recompute recompute = Recompute::kNone;
  std::int64_t bytes = 0;  // planned peak of activations
};

/// The most rows (from `most_rows` down by halves to `fewest_rows`, of `row_tokens` tokens) whose activations fit
/// `budget` without recomputation; if not even the fewest do, the cheapest recomputation that makes them fit; if none
/// does, the fewest rows with the most recomputation, whose bytes exceed the budget.
inline MicroBatchPlan plan_micro_batch(const ActivationShape& shape, std::int64_t most_rows, std::int64_t fewest_rows,
                                       std::int64_t row_tokens, std::int64_t budget) {
  MicroBatchPlan plan;
  for (const Recompute recompute : {Recompute::kNone, Recompute::kGateUp, Recompute::kLayer}) {
    for (std::int64_t rows = most_rows; rows >= fewest_rows; rows /= 2) {
      plan = {rows, recompute, activation_bytes(shape, rows * row_tokens, recompute)};
      if (plan.bytes <= budget) {
        return plan;
      }
    }
  }
  return plan;
}

}  // namespace perft::inline PERFT_ABI

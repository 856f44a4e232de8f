#pragma once
// The whole model, forward only: OLMoE and Mixtral with every adapter of the PERFT family and LoRA, and all losses.
// Weights and adapter parameters are looked up under the names their files use.

#include <cstdint>    // token ids
#include <map>        // weights by name
#include <optional>   // settings that may be absent
#include <stdexcept>  // std::out_of_range
#include <string>     // names

#include "reference/attention.hpp"
#include "reference/cross_entropy.hpp"
#include "reference/embedding.hpp"
#include "reference/linear.hpp"
#include "reference/load_balance.hpp"
#include "reference/moe.hpp"
#include "reference/perft.hpp"
#include "reference/rms_norm.hpp"
#include "reference/rope.hpp"

namespace reference {

/// The numbers of config.json that the forward pass depends on.
struct RefConfig {
  bool mixtral = false;  ///< names of the MoE block; OLMoE has the q/k norm, Mixtral renormalises
  std::size_t hidden = 0, layers = 0, heads = 0, kv_heads = 0, head_dim = 0;
  std::size_t experts = 0, top_k = 0, intermediate = 0, vocab = 0;
  double rms_norm_eps = 1e-5, rope_theta = 1e4, aux_coef = 0.0;
  bool norm_topk = false;
  bool tie_word_embeddings = false;
  std::optional<double> clip_qkv{};           ///< OLMoE only
  std::size_t sliding_window = 0;             ///< Mixtral only; 0: none
  std::optional<std::int64_t> padding_idx{};  ///< embedding row without derivative (pad_token_id)
};

/// What is attached. LoRA needs no list of targets: a projection has a term if its parameters are there.
struct RefAdapter {
  enum class Method { none, lora, perft_s, perft_d, perft_r, perft_e };
  Method method = Method::none;
  bool parallel = false;      ///< form of Δ: W2 silu(W1 x) instead of (α/r) B A x
  double scaling = 2.0;       ///< α / r
  std::size_t experts = 0;    ///< M: 1 for S, the base's number for E, 0 for LoRA
  std::size_t top_k = 0;      ///< k̃ (PERFT-R)
  bool base_weights = false;  ///< PERFT-R as in the authors' released OLMoE code
};

/// A padded batch: `rows` rows of `length` columns each. Without labels only the logits are computed.
struct RefBatch {
  std::size_t rows = 0, length = 0;
  std::vector<std::int64_t> input_ids, attention_mask, labels;
};

template <class S>
using Weights = std::map<std::string, std::vector<S>>;

/// What forward returns. aux_base and aux_peft (0 unless PERFT-R) are not multiplied by the coefficient;
/// total = (lm or lm_real_rows, as pad_rows says) + aux_coef · (aux_base + aux_peft).
template <class S>
struct Losses {
  std::vector<S> logits;                            // [B·T, V]
  std::vector<std::vector<S>> router_logits;        // per layer [B·T, N]
  std::vector<std::vector<S>> perft_router_logits;  // per layer [B·T, M], PERFT-R only
  std::vector<std::int64_t> targets;                // [B, T]
  std::vector<S> nll;                               // [B, T]
  S lm{}, lm_real_rows{}, aux_base{}, aux_peft{}, total{};
};

namespace detail {

template <class S>
const std::vector<S>& find(const Weights<S>& weights, const std::string& name) {
  const auto found = weights.find(name);
  if (found == weights.end()) throw std::out_of_range("reference model: no weight " + name);
  return found->second;
}

/// The LoRA term on the projection `prefix`, or none.
template <class S>
LowRank<S> lora_of(const Weights<S>& params, const std::string& prefix, std::size_t in, double scaling) {
  const auto a = params.find(prefix + ".lora_A.weight");
  if (a == params.end()) return {};
  return {a->second, find(params, prefix + ".lora_B.weight"), a->second.size() / in, scaling};
}

template <class S>
void add_to(std::vector<S>& x, const std::vector<S>& y) {
  for (std::size_t i = 0; i < x.size(); ++i) x.at(i) += y.at(i);
}

/// o_proj(attention(…)) of one layer for all rows of the batch; x [B·T, D] after the input norm.
template <class S>
std::vector<S> self_attention(const RefConfig& c, const Weights<S>& weights, const RefAdapter& adapter,
                              const Weights<S>& params, const RefBatch& batch, const std::string& layer,
                              const std::vector<S>& x) {
  const std::string block = layer + "self_attn.";
  const auto project = [&](const std::string& name, const std::vector<S>& in, std::size_t n_in, std::size_t n_out) {
    const auto term = lora_of(params, block + name, n_in, adapter.scaling);
    return lora_linear(in, find(weights, block + name + ".weight"), term, n_in, n_out);
  };
  const std::size_t width = c.heads * c.head_dim, kv_width = c.kv_heads * c.head_dim;
  auto q = project("q_proj", x, c.hidden, width);
  auto k = project("k_proj", x, c.hidden, kv_width);
  auto v = project("v_proj", x, c.hidden, kv_width);
  if (!c.mixtral) {
    q = rms_norm(q, find(weights, block + "q_norm.weight"), c.rms_norm_eps);
    k = rms_norm(k, find(weights, block + "k_norm.weight"), c.rms_norm_eps);
  }
  if (c.clip_qkv) {
    q = clip(q, *c.clip_qkv);
    k = clip(k, *c.clip_qkv);
    v = clip(v, *c.clip_qkv);
  }
  std::vector<double> positions(batch.length);  // 0 … T−1 for every row, padding included
  for (std::size_t t = 0; t < batch.length; ++t) positions[t] = static_cast<double>(t);
  std::vector<S> mixed;
  for (std::size_t b = 0; b < batch.rows; ++b) {
    const auto out =
        attention(rope(row(q, b, batch.length * width), positions, c.heads, c.head_dim, c.rope_theta),
                  rope(row(k, b, batch.length * kv_width), positions, c.kv_heads, c.head_dim, c.rope_theta),
                  row(v, b, batch.length * kv_width), row(batch.attention_mask, b, batch.length), c.heads, c.kv_heads,
                  c.head_dim, c.sliding_window);
    mixed.insert(mixed.end(), out.begin(), out.end());
  }
  return project("o_proj", mixed, width, c.hidden);
}

template <class S>
std::vector<Expert<S>> base_experts(const RefConfig& c, const Weights<S>& weights, const RefAdapter& adapter,
                                    const Weights<S>& params, const std::string& layer) {
  std::vector<Expert<S>> experts;
  for (std::size_t e = 0; e < c.experts; ++e) {
    const std::string block = layer + (c.mixtral ? "block_sparse_moe" : "mlp") + ".experts." + std::to_string(e) + ".";
    const std::string lora = layer + "mlp.experts." + std::to_string(e) + ".";
    experts.push_back({find(weights, block + (c.mixtral ? "w1" : "gate_proj") + ".weight"),
                       find(weights, block + (c.mixtral ? "w3" : "up_proj") + ".weight"),
                       find(weights, block + (c.mixtral ? "w2" : "down_proj") + ".weight"),
                       lora_of(params, lora + "gate_proj", c.hidden, adapter.scaling),
                       lora_of(params, lora + "up_proj", c.hidden, adapter.scaling),
                       lora_of(params, lora + "down_proj", c.intermediate, adapter.scaling)});
  }
  return experts;
}

/// The MoE block with whatever is attached to it; x [B·T, D] after the post-attention norm.
template <class S>
std::vector<S> moe_block(const RefConfig& c, const Weights<S>& weights, const RefAdapter& adapter,
                         const Weights<S>& params, const std::string& layer, const std::vector<S>& x,
                         Losses<S>& losses) {
  const std::string gate = layer + (c.mixtral ? "block_sparse_moe" : "mlp") + ".gate.weight";
  const auto gate_lora = lora_of(params, layer + "mlp.gate", c.hidden, adapter.scaling);
  losses.router_logits.push_back(lora_linear(x, find(weights, gate), gate_lora, c.hidden, c.experts));
  const auto base = route(losses.router_logits.back(), c.experts, c.top_k, c.norm_topk);
  auto y = moe(x, base, base_experts(c, weights, adapter, params, layer), c.hidden);

  using Method = RefAdapter::Method;
  if (adapter.method == Method::none || adapter.method == Method::lora) return y;
  const std::string perft = layer + "mlp.perft.";
  std::vector<Delta<S>> deltas;
  for (std::size_t j = 0; j < adapter.experts; ++j) {
    const std::string expert = perft + "experts." + std::to_string(j) + ".";
    deltas.push_back({find(params, expert + (adapter.parallel ? "w1" : "lora_A") + ".weight"),
                      find(params, expert + (adapter.parallel ? "w2" : "lora_B") + ".weight"), adapter.parallel,
                      adapter.scaling});
  }
  if (adapter.method == Method::perft_s || adapter.method == Method::perft_d) {
    add_to(y, perft_dense(x, deltas, c.hidden));
  } else if (adapter.method == Method::perft_e) {
    add_to(y, perft_routed(x, base, deltas, c.hidden));
  } else {
    const auto& router = find(params, perft + "router.weight");
    losses.perft_router_logits.push_back(linear(x, router, c.hidden, adapter.experts));
    auto own = route(losses.perft_router_logits.back(), adapter.experts, adapter.top_k, c.norm_topk);
    if (adapter.base_weights) own = with_base_weights(own, base);
    add_to(y, perft_routed(x, own, deltas, c.hidden));
  }
  return y;
}

}  // namespace detail

/// Logits and losses of a batch. `weights` has the hub's names, `params` those of the adapter file. Throws
/// std::out_of_range naming a weight that is missing.
template <class S>
Losses<S> forward(const RefConfig& c, const Weights<S>& weights, const RefAdapter& adapter, const Weights<S>& params,
                  const RefBatch& batch, PadRows pad_rows = PadRows::hf) {
  using detail::find;
  Losses<S> losses;
  const auto& table = find(weights, "model.embed_tokens.weight");
  auto h = embedding(table, batch.input_ids, c.hidden, c.padding_idx);  // [B·T, D]
  for (std::size_t n = 0; n < c.layers; ++n) {
    const std::string layer = "model.layers." + std::to_string(n) + ".";
    const auto before = rms_norm(h, find(weights, layer + "input_layernorm.weight"), c.rms_norm_eps);
    detail::add_to(h, detail::self_attention(c, weights, adapter, params, batch, layer, before));
    const auto after = rms_norm(h, find(weights, layer + "post_attention_layernorm.weight"), c.rms_norm_eps);
    detail::add_to(h, detail::moe_block(c, weights, adapter, params, layer, after, losses));
  }
  const auto& head = c.tie_word_embeddings ? table : find(weights, "lm_head.weight");
  losses.logits = linear(rms_norm(h, find(weights, "model.norm.weight"), c.rms_norm_eps), head, c.hidden, c.vocab);
  if (batch.labels.empty()) return losses;

  const auto& mask = batch.attention_mask;
  losses.targets = shifted_targets(batch.labels, batch.length);
  losses.nll = negative_log_likelihood(losses.logits, losses.targets);
  losses.lm = mean_loss(losses.nll, losses.targets, mask, PadRows::hf);
  losses.lm_real_rows = mean_loss(losses.nll, losses.targets, mask, PadRows::ignore);
  losses.aux_base = load_balance(losses.router_logits, mask, c.experts, c.top_k);
  if (adapter.method == RefAdapter::Method::perft_r) {
    losses.aux_peft = load_balance(losses.perft_router_logits, mask, adapter.experts, adapter.top_k);
  }
  losses.total =
      (pad_rows == PadRows::hf ? losses.lm : losses.lm_real_rows) + c.aux_coef * (losses.aux_base + losses.aux_peft);
  return losses;
}

}  // namespace reference

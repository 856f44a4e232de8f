#pragma once
// From a hub folder to a CausalLm whose matrices are views of the mapped file.

#include <memory>   // modules
#include <string>   // names
#include <utility>  // std::move

#include "perft/core/vec/bytes.hpp"
#include "perft/io/hub_folder.hpp"
#include "perft/models/causal_lm.hpp"
#include "perft/models/tensor_table.hpp"
#include "perft/nn/linear.hpp"
#include "perft/nn/sparse_moe.hpp"

namespace perft::inline PERFT_ABI {

namespace detail {

template <class P, class Device = Cpu>
Weight<P, Device> mapped_weight(const CheckpointTensors& tensors, const std::string& name) {
  const TensorEntry& entry = tensors.at(name);
  const FrozenMatrix<Cpu> mapped(name, entry.data, entry.dtype, entry.shape[0], entry.shape[1], entry.file);
  return Weight<P, Device>(to_device(mapped, Device{}));
}

/// Norm weights are small vectors: copied, so that they may be trained and are aligned.
template <class P, class Device = Cpu>
void copy_vector(const CheckpointTensors& tensors, const std::string& name, Parameter<P, Device>& parameter) {
  const TensorEntry& entry = tensors.at(name);
  Tensor<P> value = Tensor<P>::empty({entry.shape[0]});
  vec::convert_bytes(entry.data, entry.dtype, value.mutable_data(), value.numel());
  parameter.set(name, to_device(std::move(value), Device{}));
}

template <ComputeType C, class Device = Cpu>
std::unique_ptr<LinearSlot<C, Device>> mapped_linear(const CheckpointTensors& tensors, const std::string& name,
                                                     Precision precision = Precision::kCompute) {
  return std::make_unique<Linear<C, Device>>(mapped_weight<Param<C>, Device>(tensors, name), precision);
}

template <ComputeType C, class Device = Cpu>
std::unique_ptr<MoeBlock<C, Device>> load_moe(const CheckpointTensors& tensors, const ModelConfig& c,
                                              std::int64_t layer) {
  using P = Param<C>;
  ExpertTable<P, Device> table;
  table.reserve(static_cast<std::size_t>(c.num_experts));
  for (std::int64_t e = 0; e < c.num_experts; ++e) {
    const auto weight = [&](ExpertMatrix matrix) {
      return mapped_weight<P, Device>(tensors, expert_name(c.family, layer, e, matrix));
    };
    table.push_back({weight(ExpertMatrix::gate), weight(ExpertMatrix::up), weight(ExpertMatrix::down)});
  }
  return std::make_unique<SparseMoe<C, Device>>(
      mapped_linear<C, Device>(tensors, router_name(c.family, layer), Precision::kParam),
      std::make_unique<Experts<C, Device>>(std::move(table)), c.num_experts_per_tok, c.norm_topk_prob);
}

}  // namespace detail

/// Builds the model over checked tensors. On Cpu nothing but the norm vectors is copied; `tensors` may go, the mapping
/// stays.
template <ComputeType C, class Device = Cpu>
std::unique_ptr<CausalLm<C, Device>> build_model(const ModelConfig& config, const CheckpointTensors& tensors) {
  using P = Param<C>;
  auto model = std::make_unique<CausalLm<C, Device>>();
  model->config = config;
  model->embed_tokens =
      std::make_unique<Weight<P, Device>>(detail::mapped_weight<P, Device>(tensors, "model.embed_tokens.weight"));
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) {
    const std::string prefix = layer_prefix(i);
    auto layer = std::make_unique<DecoderLayer<C, Device>>();
    layer->eps = config.rms_norm_eps;
    detail::copy_vector(tensors, prefix + "input_layernorm.weight", layer->input_norm);
    detail::copy_vector(tensors, prefix + "post_attention_layernorm.weight", layer->post_attention_norm);
    SelfAttention<C, Device>& attention = layer->self_attn;
    attention.shape = {config.num_attention_heads, config.num_key_value_heads, config.head_dim,
                       config.sliding_window.value_or(0)};
    attention.eps = config.rms_norm_eps;
    attention.clip = config.clip_qkv;
    attention.q_proj = detail::mapped_linear<C, Device>(tensors, prefix + "self_attn.q_proj.weight");
    attention.k_proj = detail::mapped_linear<C, Device>(tensors, prefix + "self_attn.k_proj.weight");
    attention.v_proj = detail::mapped_linear<C, Device>(tensors, prefix + "self_attn.v_proj.weight");
    attention.o_proj = detail::mapped_linear<C, Device>(tensors, prefix + "self_attn.o_proj.weight");
    if (config.family == Family::olmoe) {
      attention.q_norm = std::make_unique<Parameter<P, Device>>();
      attention.k_norm = std::make_unique<Parameter<P, Device>>();
      detail::copy_vector(tensors, prefix + "self_attn.q_norm.weight", *attention.q_norm);
      detail::copy_vector(tensors, prefix + "self_attn.k_norm.weight", *attention.k_norm);
    }
    layer->mlp = detail::load_moe<C, Device>(tensors, config, i);
    model->layers.push_back(std::move(layer));
  }
  detail::copy_vector(tensors, "model.norm.weight", model->norm);
  if (!config.tie_word_embeddings) {
    model->lm_head = std::make_unique<Weight<P, Device>>(detail::mapped_weight<P, Device>(tensors, "lm_head.weight"));
  }
  return model;
}

/// Opens `dir`, checks every tensor, builds the model. Errors: see HubFolder::open, ModelConfig::parse,
/// CheckpointTensors::open.
template <ComputeType C, class Device = Cpu>
std::unique_ptr<CausalLm<C, Device>> load_model(const std::string& dir) {
  const HubFolder folder = HubFolder::open(dir);
  const ModelConfig config = ModelConfig::parse(folder.config_json(), folder.config_path());
  return build_model<C, Device>(config, CheckpointTensors::open(folder, config));
}

}  // namespace perft::inline PERFT_ABI

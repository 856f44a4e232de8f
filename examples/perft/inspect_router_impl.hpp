#pragma once
// The expert load of a base model, for one compute type.

#include <cmath>    // std::isfinite
#include <cstdint>  // counts
#include <memory>   // statistics
#include <span>     // rows of a batch
#include <vector>   // layers

#include "advice.hpp"
#include "engine_commands.hpp"
#include "perft/data/batch.hpp"
#include "perft/models/load_model.hpp"

namespace perft::cli {

template <ComputeType C>
void router_load(const ModelFiles& files, std::span<const EncodedRow> rows, RouterLoad& load) {
  const ModelConfig& config = files.config;
  const auto model = build_model<C>(config, files.tensors);
  NoRecording pause;
  std::vector<std::shared_ptr<LoadBalance>> layers;
  for (std::size_t i = 0; i < model->layers.size(); ++i) {
    layers.push_back(std::make_shared<LoadBalance>(config.num_experts));
  }
  constexpr std::int64_t kTokens = 2048;  // per batch: enough to fill the matrix products, little memory
  for (std::size_t begin = 0; begin < rows.size();) {
    std::size_t end = begin;
    for (std::int64_t tokens = 0; end < rows.size() && tokens < kTokens; ++end) {
      tokens += static_cast<std::int64_t>(rows[end].ids.size());
    }
    const Batch batch =
        ragged_batch(rows.subspan(begin, end - begin), static_cast<std::int32_t>(begin), PadRows::ignore, 0, 0);
    begin = end;
    ForwardContext<C> context = model->context(batch);
    Variable<C> x = embedding<C>(batch.ids, *model->embed_tokens);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      context.layer = static_cast<std::int64_t>(i);
      context.base_balance = layers[i];
      x = model->layers[i]->forward(x, context);
      if (!std::isfinite(layers[i]->value())) {
        fail<NonFiniteError>(files.dir, ": the router of layer ", i,
                             " gives numbers that are not finite; the first such number appears in ",
                             model->first_non_finite(batch).value_or("the head"), "; ", weights_advice<C>());
      }
    }
  }

  LoadBalance pooled(config.num_experts);
  for (const auto& layer : layers) {
    LayerLoad& out = load.layers.emplace_back();
    out.experts.counts.assign(layer->counts().begin(), layer->counts().end());
    out.aux = layer->value();
    pooled.add(layer->rows(), layer->counts(), layer->sums());
  }
  load.aux = pooled.value();
}

}  // namespace perft::cli

#pragma once
// Expert load of a base model on a text: which share of the choices each expert of each layer gets.

#include <algorithm>  // std::minmax_element
#include <cmath>      // std::log
#include <cstdint>    // counts
#include <memory>     // statistics
#include <span>       // rows of a batch
#include <string>     // messages
#include <vector>     // layers

#include "engine.hpp"
#include "perft/data/batch.hpp"
#include "perft/data/encode.hpp"
#include "perft/data/rows.hpp"
#include "perft/text/tokenizer.hpp"

namespace perft::cli {

/// Load of one layer's experts. A share is the part of all choices (tokens · K); the shares of a layer sum to 1.
struct LayerLoad {
  std::vector<double> shares;
  double aux = 0;  // the load-balancing loss of this layer alone; K when uniform

  double least() const { return *std::min_element(shares.begin(), shares.end()); }

  double most() const { return *std::max_element(shares.begin(), shares.end()); }

  /// −Σ s ln s / ln N: 1 when uniform, 0 when one expert gets everything. 1 for a single expert.
  double entropy() const {
    double sum = 0;
    for (const double share : shares) {
      sum -= share > 0 ? share * std::log(share) : 0;
    }
    return shares.size() == 1 ? 1 : sum / std::log(static_cast<double>(shares.size()));
  }

  std::int64_t dead() const { return std::count(shares.begin(), shares.end(), 0.0); }
};

struct RouterLoad {
  std::vector<LayerLoad> layers;
  double aux = 0;  // over all layers pooled, as in training
  EncodeStats text;
};

/// Runs the base model of `options.dir` over the rows of `options.data` (prompt alpaca, EOS appended, cut only at
/// max_position_embeddings) layer by layer. Throws IoError for the folder, its tokenizer and the data, NonFiniteError
/// naming the first layer whose output is not finite.
template <ComputeType C>
RouterLoad router_load(const InspectOptions& options) {
  const auto model = load_model<C>(options.dir);
  const ModelConfig& config = model->config;
  const Tokenizer tokenizer = Tokenizer::load(options.dir + "/tokenizer.json");
  EncodeOptions encode;
  encode.cutoff = config.max_position_embeddings;
  encode.eos_id = config.eos_token_ids.empty() ? -1 : static_cast<std::int32_t>(config.eos_token_ids.front());
  RouterLoad load;
  const std::vector<EncodedRow> rows =
      encode_rows(tokenizer, load_prompt_template("alpaca"), read_rows(options.data), encode, load.text);
  check_ids(rows, config.vocab_size, options.dir);

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
    const Batch batch = ragged_batch(std::span(rows).subspan(begin, end - begin), static_cast<std::int32_t>(begin),
                                     PadRows::ignore, 0, 0);
    begin = end;
    ForwardContext<C> context = model->context(batch);
    Variable<C> x = embedding<C>(batch.ids, *model->embed_tokens);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      context.layer = static_cast<std::int64_t>(i);
      context.base_balance = layers[i];
      x = model->layers[i]->forward(x, context);
      if (!std::isfinite(layers[i]->value())) {
        fail<NonFiniteError>(options.dir, ": the router of layer ", i,
                             " gives numbers that are not finite; the first such number appears in ",
                             model->first_non_finite(batch).value_or("the head"),
                             "; check the weights or use --dtype f32");
      }
    }
  }

  std::vector<double> all_counts(static_cast<std::size_t>(config.num_experts));
  std::vector<double> all_sums(all_counts.size());
  double tokens = 0;
  for (const auto& layer : layers) {
    LayerLoad& out = load.layers.emplace_back();
    const double choices = static_cast<double>(layer->rows() * config.num_experts_per_tok);
    for (std::size_t e = 0; e < all_counts.size(); ++e) {
      const auto count = static_cast<double>(layer->counts()[e]);
      out.shares.push_back(count / choices);
      all_counts[e] += count;
      all_sums[e] += layer->sums()[e];
    }
    out.aux = layer->value();
    tokens += static_cast<double>(layer->rows());
  }
  for (std::size_t e = 0; e < all_counts.size(); ++e) {
    load.aux += static_cast<double>(config.num_experts) * all_counts[e] * all_sums[e] / (tokens * tokens);
  }
  return load;
}

extern template RouterLoad router_load<bf16>(const InspectOptions&);
extern template RouterLoad router_load<float>(const InspectOptions&);
extern template RouterLoad router_load<double>(const InspectOptions&);

}  // namespace perft::cli

#pragma once
// What whole-model tests run on: golden variants as adapter folders, random tiny checkpoints, random batches; and exact
// derivatives of the reference along a direction.

#include <algorithm>  // std::min
#include <cmath>      // std::sqrt
#include <complex>    // the complex step
#include <map>        // weights
#include <string>     // names
#include <utility>    // std::move
#include <vector>     // values

#include "io/temp_folder.hpp"
#include "perft/data/padded.hpp"
#include "perft/models/config.hpp"
#include "perft/nn/parameter_list.hpp"
#include "perft/peft/adapter_config.hpp"
#include "perft/train/loss.hpp"
#include "reference/gradient.hpp"
#include "support/close.hpp"

namespace support {
struct GoldenFile;
}

namespace models_test {

/// n irregular numbers in (−scale, scale), the same on every machine. Shares no code with perft's generators.
inline std::vector<double> numbers(std::size_t n, std::uint64_t seed, double scale = 1.0) {
  std::vector<double> v;
  std::uint64_t state = seed * 0x9E3779B97F4A7C15ULL + 0x2545F4914F6CDD1DULL;
  for (std::size_t i = 0; i < n; ++i) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    v.push_back(scale * (static_cast<double>(state >> 11) * 0x1p-52 - 1.0));
  }
  return v;
}

inline std::uint64_t seed_of(const std::string& name) {
  std::uint64_t h = 7;
  for (const char c : name) h = h * 131 + static_cast<unsigned char>(c);
  return h;
}

/// Integers in [0, below), irregular.
inline std::vector<std::int64_t> integers(std::size_t n, std::uint64_t seed, std::int64_t below) {
  std::vector<std::int64_t> v;
  for (const double x : numbers(n, seed)) {
    v.push_back(static_cast<std::int64_t>((x + 1.0) / 2.0 * static_cast<double>(below)));
  }
  return v;
}

// ---- batches

/// Real tokens of a row: columns [begin, end) of `length`.
struct RowExtent {
  std::size_t begin = 0, end = 0;
};

/// A padded batch with padding id `pad`; every fifth label or so is -100 if `mask_labels`.
inline reference::RefBatch random_batch(const std::vector<RowExtent>& rows, std::size_t length, std::int64_t vocab,
                                        std::int64_t pad, std::uint64_t seed, bool mask_labels = true) {
  reference::RefBatch batch{rows.size(), length, {}, {}, {}};
  const auto ids = integers(rows.size() * length, seed, vocab);
  const auto dice = integers(rows.size() * length, seed + 1, 5);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    for (std::size_t t = 0; t < length; ++t) {
      const std::size_t at = r * length + t;
      const bool real = t >= rows[r].begin && t < rows[r].end;
      batch.input_ids.push_back(real ? ids[at] : pad);
      batch.attention_mask.push_back(real ? 1 : 0);
      batch.labels.push_back(real && (!mask_labels || dice[at] != 0) ? ids[at] : -100);
    }
  }
  return batch;
}

inline perft::PaddedBatch padded(const reference::RefBatch& batch, std::int64_t vocab,
                                 perft::PadRows mode = perft::PadRows::hf) {
  const std::vector<std::int64_t> shape{static_cast<std::int64_t>(batch.rows), static_cast<std::int64_t>(batch.length)};
  return perft::from_padded("the batch", {batch.input_ids, shape}, {batch.attention_mask, shape},
                            perft::IntegerTensor{batch.labels, shape}, vocab, mode);
}

/// The real tokens of every row, as training reads them.
inline std::vector<perft::EncodedRow> rows_of(const reference::RefBatch& batch) {
  std::vector<perft::EncodedRow> rows(batch.rows);
  for (std::size_t at = 0; at < batch.input_ids.size(); ++at) {
    if (batch.attention_mask[at] == 1) {
      rows[at / batch.length].ids.push_back(static_cast<std::int32_t>(batch.input_ids[at]));
      rows[at / batch.length].labels.push_back(static_cast<std::int32_t>(batch.labels[at]));
    }
  }
  return rows;
}

/// `rows` in a padded batch of `length` columns, padding on the left or on the right.
inline reference::RefBatch padded_rows(const std::vector<perft::EncodedRow>& rows, std::size_t length, std::int64_t pad,
                                       bool left) {
  reference::RefBatch batch{rows.size(), length, {}, {}, {}};
  for (const perft::EncodedRow& row : rows) {
    const std::size_t begin = left ? length - row.ids.size() : 0;
    for (std::size_t t = 0; t < length; ++t) {
      const bool real = t >= begin && t < begin + row.ids.size();
      batch.input_ids.push_back(real ? row.ids[t - begin] : pad);
      batch.attention_mask.push_back(real ? 1 : 0);
      batch.labels.push_back(real ? row.labels[t - begin] : -100);
    }
  }
  return batch;
}

/// Loss options of `perft score`: the mean over the batch's targets plus coef · aux.
inline perft::LossOptions whole_batch(const perft::Batch& batch, double coef) {
  perft::LossOptions options;
  options.lm_scale = 1.0 / static_cast<double>(batch.targets.size());
  options.aux_weight = coef;
  return options;
}

/// Token logits [T, V] spread to every padded position.
template <class P>
std::vector<P> spread(const perft::Tensor<P>& logits, const std::vector<std::int32_t>& source) {
  std::vector<P> all;
  const auto vocab = static_cast<std::ptrdiff_t>(logits.size(1));
  for (const std::int32_t token : source) {
    const auto row = logits.span().begin() + token * vocab;
    all.insert(all.end(), row, row + vocab);
  }
  return all;
}

template <class P>
std::vector<double> doubles(const perft::Tensor<P>& tensor) {
  return {tensor.span().begin(), tensor.span().end()};
}

// ---- adapters

/// The spec that describes the same adapter as `adapter` with the tensors `params`.
inline perft::AdapterSpec spec_of(const reference::RefAdapter& adapter, std::int64_t rank,
                                  const std::vector<std::string>& targets = {}) {
  using Method = reference::RefAdapter::Method;
  perft::AdapterSpec spec;
  spec.method = adapter.method == Method::perft_s   ? perft::Method::kPerftS
                : adapter.method == Method::perft_d ? perft::Method::kPerftD
                : adapter.method == Method::perft_r ? perft::Method::kPerftR
                : adapter.method == Method::perft_e ? perft::Method::kPerftE
                                                    : perft::Method::kLora;
  spec.delta = adapter.parallel ? perft::DeltaForm::kParallel : perft::DeltaForm::kLora;
  spec.rank = rank;
  spec.alpha = adapter.scaling * static_cast<double>(rank);
  spec.experts = static_cast<std::int64_t>(adapter.experts);
  spec.top_k = static_cast<std::int64_t>(adapter.top_k);
  spec.router_weights = adapter.base_weights ? perft::RouterWeights::kAuthorsOlmoe : perft::RouterWeights::kOwn;
  spec.targets = targets;
  return spec;
}

/// The spec of a golden file's adapter, read from its tensors' names and shapes.
perft::AdapterSpec golden_spec(const support::GoldenFile& golden);

/// Writes the adapter folder of a golden file's param.* tensors into the existing folder `dir`.
void write_golden_adapter(const support::GoldenFile& golden, const perft::BaseFacts& base, const std::string& dir);

/// A parameter's value as files (and the reference) hold it.
template <class P>
std::vector<double> stored_value(const perft::Parameter<P>& parameter) {
  return doubles(perft::as_stored(parameter, parameter.value()));
}

template <class P>
std::vector<double> stored_gradient(const perft::Parameter<P>& parameter) {
  return doubles(perft::as_stored(parameter, parameter.gradient()));
}

/// Gives every listed parameter irregular values (a function of its name) and returns them as files hold them. Sizes
/// such that base and adapter both show in the logits.
template <class P>
reference::Weights<double> randomise(const std::vector<perft::Parameter<P>*>& parameters, double scale = 0.3) {
  reference::Weights<double> values;
  for (perft::Parameter<P>* parameter : parameters) {
    const auto v = numbers(static_cast<std::size_t>(parameter->value().numel()), seed_of(parameter->name()), scale);
    for (std::size_t i = 0; i < v.size(); ++i) {
      parameter->mutable_value().mutable_span()[i] = static_cast<P>(v[i]);
    }
    values[parameter->name()] = stored_value(*parameter);
  }
  return values;
}

// ---- random checkpoints

/// The numbers of a config.json, read without perft.
reference::RefConfig reference_config(const std::string& file);

/// How a checkpoint is laid out on disk.
struct Layout {
  perft::DType dtype = perft::DType::f32;
  std::size_t shards = 1;
  bool fused = false;  // experts as transformers 5 holds them
};

/// A small OLMoE as config.json: D 24, 2 layers, 4 heads of 6, 6 experts top-2 of width 10, V 37, pad id 1. `changes`
/// is a JSON object merged over it.
std::string small_olmoe(const std::string& changes = "{}");

/// A small Mixtral: D 24, 2 layers, 6 heads and 2 kv heads of 4, 5 experts top-2 of width 10, V 37, no pad id.
std::string small_mixtral(const std::string& changes = "{}");

/// A random checkpoint with this config.json in the existing folder `dir`.
struct RandomCheckpoint {
  reference::RefConfig config;
  reference::Weights<double> weights;  // by hub name, as the file holds them (rounded to its dtype)
};

RandomCheckpoint write_random_checkpoint(const std::string& config, const Layout& layout, const std::string& dir,
                                         std::uint64_t seed = 1);

// ---- the reference, compiled once

reference::Losses<double> reference_losses(const reference::Problem& problem);

/// d total / d (name along v) = Σ_i v_i ∂ total / ∂ name_i, by one complex step of all entries at once: one forward
/// pass looks at a whole tensor.
class DirectionalDerivatives {
 public:
  explicit DirectionalDerivatives(const reference::Problem& problem);

  /// Of Σ_m shares[m] · coef · aux(parts[m]) + lm, where lm is the token mean over all parts together: a batch
  /// accumulated in micro-batches.
  DirectionalDerivatives(const reference::Problem& problem, const std::vector<reference::RefBatch>& parts,
                         const std::vector<double>& shares);

  double along(const std::string& name, const std::vector<double>& v);

  /// The loss itself.
  double total();

 private:
  using Complex = std::complex<double>;
  Complex complex_total();

  reference::Problem problem_;
  std::vector<reference::RefBatch> parts_;
  std::vector<double> shares_;
  reference::Weights<Complex> weights_, params_;
};

/// Whether `gradient` is the derivative with respect to `name`: along a random direction, and at its largest entry.
/// `tolerance` is relative to the largest entry (times the direction's norm).
inline support::CloseResult is_gradient(DirectionalDerivatives& derivatives, const std::string& name,
                                        const std::vector<double>& gradient, double tolerance) {
  std::size_t largest = 0;
  double dot = 0, norm = 0;
  const auto direction = numbers(gradient.size(), seed_of(name) + 99);
  for (std::size_t i = 0; i < gradient.size(); ++i) {
    if (std::abs(gradient[i]) > std::abs(gradient[largest])) largest = i;
    dot += gradient[i] * direction[i];
    norm += direction[i] * direction[i];
  }
  const double scale = std::abs(gradient.at(largest));
  // The floor is for gradients that are zero in exact arithmetic: rounding leaves 1e-17 or so on either side.
  auto result =
      support::close(dot, derivatives.along(name, direction), {.abs = tolerance * scale * std::sqrt(norm) + 1e-14});
  if (!result) return result;
  std::vector<double> unit(gradient.size(), 0.0);
  unit[largest] = 1.0;
  return support::close(gradient[largest], derivatives.along(name, unit), {.abs = tolerance * scale + 1e-14});
}

}  // namespace models_test

#pragma once
// The training loop's parts as one object: a step over an accumulated batch, and validation.

#include <algorithm>   // std::min
#include <cmath>       // std::sqrt
#include <cstdint>     // seeds
#include <functional>  // when to stop
#include <span>        // rows
#include <vector>      // batches

#include "perft/data/batch.hpp"
#include "perft/data/order.hpp"
#include "perft/train/adamw.hpp"
#include "perft/train/loss.hpp"

namespace perft::inline PERFT_ABI {

/// The losses were finite, a gradient is not.
class NonFiniteGradient : public NonFiniteError {
 public:
  using NonFiniteError::NonFiniteError;
};

struct TrainerOptions {
  double aux_coefficient = 0;
  double clip = 1.0;  // 0: no clipping
  AdamWOptions adamw;
  PadRows pad_rows = PadRows::ignore;
  std::int32_t pad_id = 0;
  std::int64_t micro_batch = 16;  // rows
  std::uint64_t seed = 42;        // of dropout
  HiddenPolicy hidden = HiddenPolicy::kSave;
  bool recompute_layers = false;
};

struct StepResult {
  double lm = 0;   // token mean over the accumulated batch
  double aux = 0;  // mean over micro-batches, weighted by real tokens; not multiplied by the coefficient
  double adapter_aux = 0;
  double gradient_norm = 0;  // before clipping
  std::int64_t tokens = 0;   // real ones
  std::int64_t targets = 0;
  std::size_t saved_bytes = 0;  // largest of the micro-batches
  RouterUse base_use;           // over the whole batch
  RouterUse adapter_use;
};

struct ValidationResult {
  double loss = 0;            // lm, token mean over all rows, without aux
  double standard_error = 0;  // of `loss`, rows being the sampling unit (ratio estimator)
  std::int64_t targets = 0;
  bool stopped = false;             // before all rows were seen: the rest is worth nothing
  std::vector<double> row_nll;      // summed over each row's targets
  std::vector<double> row_targets;  // how many
};

/// A mean and its standard error.
struct Estimate {
  double value = 0;
  double standard_error = 0;
};

/// Σ sums / Σ counts and its standard error, (sum, count) pairs being the sampling unit (ratio estimator, Cochran 1977,
/// eq. 6.13). 0 with nothing counted; standard error 0 for a single pair.
inline Estimate ratio_estimate(std::span<const double> sums, std::span<const double> counts) {
  double total = 0;
  double count = 0;
  for (std::size_t i = 0; i < sums.size(); ++i) {
    total += sums[i];
    count += counts[i];
  }
  count = std::max(1.0, count);
  Estimate estimate{total / count, 0};
  double squares = 0;
  for (std::size_t i = 0; i < sums.size(); ++i) {
    const double residual = sums[i] - estimate.value * counts[i];
    squares += residual * residual;
  }
  const auto n = static_cast<double>(sums.size());
  estimate.standard_error = n > 1 ? std::sqrt(squares * n / (n - 1)) / count : 0.0;
  return estimate;
}

/// How much the loss changed from `before` (row_nll of an earlier validation of the same rows) to `after`. Paired: what
/// makes a row hard for both cancels, so the error is much smaller than that of either loss.
inline Estimate validation_change(std::span<const double> before, const ValidationResult& after) {
  check<ShapeError>(before.size() == after.row_nll.size(), "validation: ", before.size(), " rows before and ",
                    after.row_nll.size(), " after, expected the same ones");
  std::vector<double> differences(before.size());
  for (std::size_t r = 0; r < before.size(); ++r) {
    differences[r] = after.row_nll[r] - before[r];
  }
  return ratio_estimate(differences, after.row_targets);
}

/// Trains whatever is trainable in `model`, which must outlive it. Throws UnsupportedError for a model whose router
/// inputs are to be jittered in training (Mixtral's router_jitter_noise): no published run uses it.
template <ComputeType C, class Model, class Device = Cpu>
class Trainer {
 public:
  using P = Param<C>;

  Trainer(Model& model, std::vector<Parameter<P, Device>*> parameters, TrainerOptions options)
      : model_(model), options_(options), optimizer_(std::move(parameters), options.adamw) {
    check<UnsupportedError>(model.config.router_jitter_noise == 0, "trainer: the model's router_jitter_noise is ",
                            model.config.router_jitter_noise, ", training supports 0; set it to 0");
  }

  /// One optimiser step over `rows`, cut into micro-batches: lm is the token mean over the whole batch, aux is taken
  /// per micro-batch and weighted by its share of the batch's real tokens (spec of gradient accumulation: docs/cli.md).
  /// `step` keys dropout. If a loss or a gradient is not finite, throws NonFiniteError (NonFiniteGradient)
  /// with parameters and moments as they were; gradients are then worth nothing.
  StepResult step(std::span<const EncodedRow> rows, std::uint64_t step, double lr) {
    const std::vector<Batch> batches = micro_batches(rows);
    StepResult result;
    for (const Batch& batch : batches) {
      result.targets += static_cast<std::int64_t>(batch.targets.size());
      result.tokens += real_tokens(batch);
    }
    for (Parameter<P, Device>* parameter : optimizer_.parameters()) {
      parameter->clear_gradient();
    }
    for (const Batch& batch : batches) {
      const double share = static_cast<double>(real_tokens(batch)) / static_cast<double>(result.tokens);
      LossOptions options = loss_options(result.targets);
      options.aux_weight = options_.aux_coefficient * share;
      options.training = true;
      options.seed = options_.seed;
      options.step = step;
      const Losses losses = accumulate_gradients<C, Device>(model_, batch, options);
      result.lm += losses.lm;
      result.aux += share * losses.aux;
      result.adapter_aux += share * losses.adapter_aux;
      result.saved_bytes = std::max(result.saved_bytes, losses.saved_bytes);
      result.base_use.add(losses.base_use);
      result.adapter_use.add(losses.adapter_use);
    }
    result.gradient_norm = gradient_norm(optimizer_.parameters());
    check<NonFiniteGradient>(std::isfinite(result.gradient_norm), "the gradient norm is not finite");
    optimizer_.step(lr, clip_factor(result.gradient_norm, options_.clip));
    return result;
  }

  /// Mean loss over `rows`, in batches of `batch_rows` (which, with pad rows hf, set the padded length). `stop`, if
  /// given, is asked before each micro-batch.
  ValidationResult validate(std::span<const EncodedRow> rows, std::int64_t batch_rows,
                            const std::function<bool()>& stop = {}) {
    ValidationResult result;
    result.row_nll.resize(rows.size());
    result.row_targets.resize(rows.size());
    for (const IndexRange& range : pieces(static_cast<std::int64_t>(rows.size()), batch_rows)) {
      const auto part = rows.subspan(static_cast<std::size_t>(range.begin), static_cast<std::size_t>(range.size()));
      for (const Batch& batch : micro_batches(part)) {
        if (stop && stop()) {
          result.stopped = true;
          return result;
        }
        LossOptions options = loss_options(1);
        options.collect_aux = false;
        const Losses losses = evaluate_loss<C, Device>(model_, batch, options);
        for (std::size_t i = 0; i < losses.nll.size(); ++i) {
          const auto row = static_cast<std::size_t>(range.begin + batch.target_row[i]);
          result.row_nll[row] += losses.nll[i];
          result.row_targets[row] += 1;
        }
        result.targets += static_cast<std::int64_t>(losses.nll.size());
      }
    }
    const Estimate estimate = ratio_estimate(result.row_nll, result.row_targets);
    result.loss = estimate.value;
    result.standard_error = estimate.standard_error;
    return result;
  }

  AdamW<P, Device>& optimizer() { return optimizer_; }

  const TrainerOptions& options() const { return options_; }

 private:
  std::vector<Batch> micro_batches(std::span<const EncodedRow> rows) const {
    const std::int64_t columns = padded_columns(rows);
    std::vector<Batch> batches;
    for (const IndexRange& range : pieces(static_cast<std::int64_t>(rows.size()), options_.micro_batch)) {
      batches.push_back(
          ragged_batch(rows.subspan(static_cast<std::size_t>(range.begin), static_cast<std::size_t>(range.size())),
                       static_cast<std::int32_t>(range.begin), options_.pad_rows, columns, options_.pad_id));
    }
    return batches;
  }

  LossOptions loss_options(std::int64_t targets) const {
    LossOptions options;
    options.lm_scale = targets > 0 ? 1.0 / static_cast<double>(targets) : 0.0;
    options.hidden = options_.hidden;
    options.recompute_layers = options_.recompute_layers;
    return options;
  }

  Model& model_;
  TrainerOptions options_;
  AdamW<P, Device> optimizer_;
};

}  // namespace perft::inline PERFT_ABI

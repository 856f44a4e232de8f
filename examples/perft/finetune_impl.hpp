#pragma once
// `perft finetune` for one compute type.

#include <chrono>      // tokens per second
#include <cmath>       // std::isfinite
#include <filesystem>  // what is published
#include <iostream>    // results
#include <numeric>     // std::iota
#include <optional>    // progress
#include <span>        // rows of a batch
#include <string>      // paths
#include <vector>      // rows

#include "engine.hpp"
#include "finetune_data.hpp"
#include "full_model.hpp"
#include "perft/train/memory_plan.hpp"
#include "perft/train/metrics.hpp"
#include "perft/train/progress.hpp"
#include "perft/train/schedule.hpp"
#include "perft/train/trainer.hpp"
#include "report_error.hpp"
#include "run_folder.hpp"
#include "signals.hpp"
#include "training_state.hpp"

namespace perft::cli {

/// The options as an AdapterSpec; not for method full.
AdapterSpec adapter_spec(const FinetuneOptions& options);

/// Fills what depends on the model: learning rate, aux coefficient, compute type, micro-batch (rows that fit the memory
/// budget). Returns the plan.
MicroBatchPlan resolve_options(FinetuneOptions& options, const ModelConfig& config, std::int64_t longest_row);

/// Bytes of activations that a micro-batch may take: --memory-budget, or half of what the machine has.
std::int64_t activation_budget(const FinetuneOptions& options);

/// Throws IoError unless `now` equals the options saved in `folder` but for the folder's own name, threads, steps,
/// epochs and the budget.
void check_same_run(const RunFolder& folder, const FinetuneOptions& now);

/// Fills what was not given and a resumed run takes over from run.toml: the micro-batch (another cut would round, and
/// weigh aux, differently), steps and epochs.
void take_saved_options(const RunFolder& folder, FinetuneOptions& options);

/// Optimizer steps of a run on `rows` training rows.
std::int64_t planned_steps(const FinetuneOptions& options, std::int64_t rows);

/// Throws IoError if the saved run was to have more steps than `now`: its schedule is behind it.
void check_not_shorter(const RunFolder& folder, const FinetuneOptions& now, std::int64_t rows);

/// Writes run.toml.
void save_run_config(const RunFolder& folder, const FinetuneOptions& options);

template <ComputeType C>
class FinetuneRun {
 public:
  using P = Param<C>;
  using Clock = std::chrono::steady_clock;

  explicit FinetuneRun(const FinetuneOptions& options) : options_(options), folder_(options.out) {}

  int run() {
    const auto started = Clock::now();
    const HubFolder hub = HubFolder::open(options_.model);
    const ModelConfig config = ModelConfig::parse(hub.config_json(), hub.config_path());
    check<UnsupportedError>(config.router_jitter_noise == 0, hub.config_path(), ": router_jitter_noise is ",
                            config.router_jitter_noise, ", training supports 0; set it to 0");
    const bool resuming = options_.resume && folder_.holds_run();
    if (!resuming) {
      folder_.check_free(options_.model);
      if (options_.resume) {
        note(options_.out + ": no run to resume, starting one");
      }
    }
    data_ = load_data(options_, config.vocab_size);
    check_ids(data_.train, config.vocab_size, options_.model);
    check_ids(data_.validation, config.vocab_size, options_.model);
    const auto rows = static_cast<std::int64_t>(data_.train.size());
    if (resuming) {
      take_saved_options(folder_, options_);
    }
    if (!options_.epochs) {
      options_.epochs = kDefaultEpochs;
    }
    const MicroBatchPlan plan = resolve_options(options_, config, data_.stats.longest);
    if (resuming) {
      check_same_run(folder_, options_);
      check_not_shorter(folder_, options_, rows);
    }
    total_steps_ = planned_steps(options_, rows);
    tensors_.emplace(CheckpointTensors::open(hub, config));
    model_ = build_model<C>(config, *tensors_);
    if (options_.method == Method::full) {
      train_everything<C>(*model_);
    } else {
      spec_ = adapter_spec(options_);
      try {
        attach<C>(*model_, spec_, config.initializer_range, static_cast<std::uint64_t>(options_.seed));
      } catch (const ValueError& error) {
        fail<IoError>(hub.config_path(), ": ", error.what());
      }
    }
    make_trainer(plan);
    if (resuming && !load_newest()) {
      note(options_.out + ": no checkpoint to resume from, starting anew");
    }
    std::cout << trained_table(trained_tensors(), base_parameters()) << "\n"
              << data_table(data_, options_) << plan_table(plan, options_.batch_size, activation_budget(options_))
              << std::flush;
    check<IoError>(std::cout.good(), "stdout: cannot write the tables before step 1; check the disk or the reading ",
                   "program");
    if (progress_.step < total_steps_) {
      defer_signals();
      if (!resuming) {
        folder_.create(options_.model);
      }
      try {
        if (const int signal = train(resuming); signal != 0) {
          return 128 + signal;
        }
      } catch (...) {
        if (!resuming) {
          folder_.discard_unless_saved();
        }
        throw;
      }
    }
    publish();
    summarize(std::chrono::duration<double>(Clock::now() - started).count());
    return 0;
  }

 private:
  void make_trainer(const MicroBatchPlan& plan) {
    TrainerOptions options;
    options.aux_coefficient = *options_.aux_coef;
    options.clip = options_.clip;
    options.adamw.weight_decay = options_.weight_decay;
    options.pad_rows = options_.pad_rows;
    options.pad_id = 0;  // as published; also what the authors' tokenizer is told
    options.micro_batch = *options_.micro_batch_size;
    options.seed = static_cast<std::uint64_t>(options_.seed);
    options.hidden = plan.recompute == Recompute::kGateUp ? HiddenPolicy::kRecompute : HiddenPolicy::kSave;
    options.recompute_layers = plan.recompute == Recompute::kLayer;
    trainer_.emplace(*model_, trainable_parameters<C>(*model_), options);
    if (options_.router_dtype == RouterDtype::bf16) {
      round_routers();
    }
  }

  /// Trains from progress_.step to total_steps_. Returns the signal that stopped it, or 0.
  int train(bool resuming) {
    save_run_config(folder_, options_);
    if (resuming) {
      folder_.truncate_metrics(progress_.step);
    }
    MetricsWriter metrics(folder_.file("metrics.jsonl"), !resuming);
    ProgressBar bar;
    if (progress_.step == 0 && !data_.validation.empty()) {
      validate(metrics, bar);
    }
    const std::vector<IndexRange> batches = pieces(static_cast<std::int64_t>(data_.train.size()), options_.batch_size);
    const auto per_epoch = static_cast<std::int64_t>(batches.size());
    std::vector<std::int64_t> all(data_.train.size());
    std::iota(all.begin(), all.end(), 0);
    std::int64_t epoch = -1;
    std::vector<std::int64_t> order;
    double timed_seconds = 0;
    std::int64_t timed_tokens = 0;
    bool first = true;
    while (progress_.step < total_steps_) {
      if (progress_.step / per_epoch != epoch) {
        epoch = progress_.step / per_epoch;
        order = epoch_order(all, epoch, static_cast<std::uint64_t>(options_.seed));
      }
      const IndexRange& range = batches[static_cast<std::size_t>(progress_.step % per_epoch)];
      std::vector<EncodedRow> rows;
      for (std::int64_t i = range.begin; i < range.end; ++i) {
        rows.push_back(data_.train[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])]);
      }
      const double lr = *options_.lr * linear_schedule(progress_.step, options_.warmup, total_steps_);
      const auto begin = Clock::now();
      const StepResult result = step(rows, lr);
      const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
      ++progress_.step;
      progress_.train_loss = result.lm;
      progress_.tokens += result.tokens;
      if (!first) {
        timed_seconds += seconds;
        timed_tokens += result.tokens;
        tokens_per_second_ = static_cast<double>(timed_tokens) / timed_seconds;
      }
      first = false;
      const ProcessMemory memory = process_memory();
      peak_anonymous_ = std::max(peak_anonymous_, memory.anonymous);
      metrics.write({{"step", progress_.step},
                     {"epoch", epoch},
                     {"lr", lr},
                     {"train_loss", result.lm},
                     {"aux_loss", result.aux},
                     {"adapter_aux_loss", result.adapter_aux},
                     {"grad_norm", result.gradient_norm},
                     {"tokens", result.tokens},
                     {"seconds", seconds},
                     {"anonymous_bytes", memory.anonymous}});
      draw(bar, static_cast<double>(result.tokens) / seconds, seconds);
      const auto stepped = Clock::now();
      const bool last = progress_.step == total_steps_;
      bool save = last || progress_.step % options_.save_every == 0;
      if (!data_.validation.empty() && (last || progress_.step % options_.eval_every == 0)) {
        save = validate(metrics, bar) || save;
      }
      const int signal = last ? 0 : interrupted();  // after validation, which may take long
      if (save || signal != 0) {
        save_state();
      }
      beside_steps_ += std::chrono::duration<double>(Clock::now() - stepped).count();
      ++steps_here_;
      if (signal != 0) {
        bar.clear();
        note(options_.out + ": stopped by a signal after step " + std::to_string(progress_.step) +
             "; --resume continues");
        return signal;
      }
    }
    return 0;
  }

  StepResult step(const std::vector<EncodedRow>& rows, double lr) {
    try {
      StepResult result = trainer_->step(rows, static_cast<std::uint64_t>(progress_.step), lr);
      if (options_.router_dtype == RouterDtype::bf16) {
        round_routers();
      }
      return result;
    } catch (const NonFiniteGradient& error) {
      fail<NonFiniteError>(options_.out, ": step ", progress_.step + 1, ": ", error.what(), "; lower --lr",
                           kept_checkpoint());
    } catch (const NonFiniteError& error) {
      const Batch batch = ragged_batch(rows, 0, options_.pad_rows, padded_columns(rows), 0);
      fail<NonFiniteError>(options_.out, ": step ", progress_.step + 1, ": ", error.what(),
                           "; such numbers first appear in ", model_->first_non_finite(batch).value_or("the head"),
                           "; lower --lr or look at the weights and the data", kept_checkpoint());
    }
  }

  /// What a failed run still has, for messages.
  std::string kept_checkpoint() const { return folder_.checkpoints().empty() ? "" : "; the last checkpoint is intact"; }

  std::string first_non_finite_of_validation() {
    for (const IndexRange& range : pieces(static_cast<std::int64_t>(data_.validation.size()), options_.batch_size)) {
      const auto rows = std::span<const EncodedRow>(data_.validation)
                            .subspan(static_cast<std::size_t>(range.begin), static_cast<std::size_t>(range.size()));
      const Batch batch = ragged_batch(rows, 0, options_.pad_rows, padded_columns(rows), 0);
      if (const auto where = model_->first_non_finite(batch)) {
        return *where;
      }
    }
    return "the head";
  }

  /// Returns whether this is the best loss so far.
  bool validate(MetricsWriter& metrics, ProgressBar& bar) {
    const ValidationResult result = trainer_->validate(data_.validation, options_.batch_size);
    if (!std::isfinite(result.loss)) {
      fail<NonFiniteError>(options_.out, ": step ", progress_.step,
                           ": the validation loss is not finite; such numbers ", "first appear in ",
                           first_non_finite_of_validation(), "; lower --lr or look at the weights and the data",
                           kept_checkpoint());
    }
    progress_.val_loss = result.loss;
    metrics.write({{"step", progress_.step}, {"val_loss", result.loss}, {"val_standard_error", result.standard_error}});
    if (!options_.json) {
      bar.clear();
      std::cout << "step " << progress_.step << ": validation loss " << result.loss << " ± " << result.standard_error
                << std::endl;
    }
    const bool best = progress_.step > 0 && (progress_.best_step < 0 || result.loss < progress_.best_loss);
    if (best) {
      progress_.best_step = progress_.step;
      progress_.best_loss = result.loss;
    }
    return best;
  }

  void save_state() {
    folder_.save_checkpoint(progress_.step, [&](const std::string& dir) {
      if (options_.method == Method::full) {
        save_full_model<C>(*model_, *tensors_, options_.model, dir);
      } else {
        save_adapter<C>(*model_, spec_, base_facts(model_->config), dir);
      }
      save_training_state(dir + "/training_state.safetensors", progress_, trainer_->optimizer(), rounded_when_saved());
    });
    folder_.prune(options_.keep, progress_.best_step);
  }

  bool load_newest() {
    const std::vector<std::int64_t> steps = folder_.checkpoints();
    if (steps.empty()) {
      return false;
    }
    const std::string dir = folder_.checkpoint(steps.back());
    if (!rounded_when_saved()) {
      load_adapter_weights<C>(*model_, dir + "/adapter_model.safetensors");
    }
    progress_ = load_training_state(dir + "/training_state.safetensors", steps.back(), trainer_->optimizer(),
                                    rounded_when_saved());
    return true;
  }

  /// Whether a checkpoint's weights are not the parameters themselves: F32 of doubles, a base's bf16 of fp32 masters.
  bool rounded_when_saved() const { return std::is_same_v<P, double> || options_.method == Method::full; }

  /// The result: the best state's files (or the last's) in the run's folder itself. What is there already stays
  /// untouched.
  void publish() {
    const std::int64_t chosen = progress_.best_step >= 0 ? progress_.best_step : progress_.step;
    const std::string from = folder_.checkpoint(chosen);
    for (const std::string name : {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json",
                                   "tokenizer_config.json", "adapter_model.safetensors", "adapter_config.json"}) {
      copy_if_there(from, folder_.path(), name);
      const bool needed = options_.method == Method::full ? name == "model.safetensors" || name == "config.json"
                                                          : name.starts_with("adapter_");
      check<IoError>(!needed || std::filesystem::exists(folder_.file(name)), from, ": holds no ", name,
                     ", the best state's; put the folder back, or train again with another --out");
    }
  }

  /// The authors' router is bf16, moments included: what a step changes by less than half an ulp is lost.
  void round_routers() {
    auto& optimizer = trainer_->optimizer();
    for (std::size_t i = 0; i < optimizer.parameters().size(); ++i) {
      Parameter<P>& parameter = *optimizer.parameters()[i];
      if (parameter.name().ends_with(".perft.router.weight")) {
        auto& state = optimizer.state()[i];
        for (Tensor<P>* tensor : {&parameter.mutable_value(), &state.m, &state.v}) {
          if (tensor->defined()) {
            vec::round_to_bf16(tensor->mutable_data(), tensor->numel());
          }
        }
      }
    }
  }

  std::vector<TrainedTensor> trained_tensors() const {
    std::vector<TrainedTensor> list;
    for (const Parameter<P>* parameter : trainable_parameters<C>(*model_)) {
      list.push_back({parameter->name(), parameter->value().numel()});
    }
    return list;
  }

  std::int64_t base_parameters() const {
    std::int64_t total = 0;
    for (const TensorEntry& entry : tensors_->entries()) {
      total += entry.elements();
    }
    return total;
  }

  void draw(ProgressBar& bar, double tokens_per_second, double seconds) {
    if (!bar.visible()) {
      return;
    }
    smoothed_ = smoothed_ == 0 ? seconds : 0.9 * smoothed_ + 0.1 * seconds;
    Progress progress;
    progress.step = progress_.step;
    progress.steps = total_steps_;
    progress.tokens_per_second = tokens_per_second;
    // Validation and saving take their share of what is left, too.
    const double beside = steps_here_ > 0 ? beside_steps_ / static_cast<double>(steps_here_) : 0.0;
    progress.seconds_left = (smoothed_ + beside) * static_cast<double>(total_steps_ - progress_.step);
    progress.loss = progress_.train_loss;
    progress.memory_bytes = peak_anonymous_;
    bar.draw(progress, progress_.step == total_steps_);
  }

  void summarize(double wall_seconds) {
    OrderedJson json;
    json["steps"] = progress_.step;
    json["tokens"] = progress_.tokens;
    json["tokens_per_second"] = tokens_per_second_;
    json["train_loss"] = progress_.train_loss;
    json["val_loss"] = data_.validation.empty() ? OrderedJson() : OrderedJson(progress_.val_loss);
    json["best_val_loss"] = progress_.best_step < 0 ? OrderedJson() : OrderedJson(progress_.best_loss);
    std::int64_t trainable = 0;
    for (const TrainedTensor& tensor : trained_tensors()) {
      trainable += tensor.parameters;
    }
    json["trainable_parameters"] = trainable;
    const ProcessMemory memory = process_memory();
    json["peak_rss_bytes"] = memory.peak_rss;
    json["peak_anonymous_bytes"] = std::max(peak_anonymous_, memory.anonymous);
    json["wall_seconds"] = wall_seconds;
    if (options_.json) {
      std::cout << json.dump() << "\n";
    } else {
      std::cout << "steps " << progress_.step << ", train loss " << progress_.train_loss;
      if (progress_.best_step >= 0) {
        std::cout << ", best validation loss " << progress_.best_loss << " (step " << progress_.best_step << ")";
      }
      std::cout << ", " << tokens_per_second_ << " tokens/s; saved to " << options_.out << "\n";
    }
  }

  FinetuneOptions options_;
  RunFolder folder_;
  FinetuneData data_;
  std::optional<CheckpointTensors> tensors_;
  std::unique_ptr<CausalLm<C>> model_;
  AdapterSpec spec_;
  std::optional<Trainer<C, CausalLm<C>>> trainer_;
  RunProgress progress_;
  std::int64_t total_steps_ = 0;
  std::int64_t peak_anonymous_ = 0;
  double tokens_per_second_ = 0;
  double smoothed_ = 0;
  double beside_steps_ = 0;  // seconds of validation and saving in this process
  std::int64_t steps_here_ = 0;
};

template <ComputeType C>
int finetune_with(const FinetuneOptions& options) {
  return FinetuneRun<C>(options).run();
}

}  // namespace perft::cli

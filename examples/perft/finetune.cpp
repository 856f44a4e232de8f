// `perft finetune`: the run, whatever the compute type.

#include "finetune.hpp"

#include <algorithm>  // std::count, std::sort
#include <chrono>     // tokens per second
#include <cmath>      // std::isfinite
#include <iostream>   // results
#include <memory>     // the session
#include <numeric>    // std::iota
#include <optional>   // progress
#include <set>        // alarms shown
#include <span>       // rows of a batch
#include <string>     // paths
#include <vector>     // rows

#include <fmt/format.h>

#include "engine.hpp"
#include "engine_commands.hpp"
#include "finetune_data.hpp"
#include "finetune_options.hpp"
#include "memory_use.hpp"
#include "perft/data/order.hpp"
#include "perft/io/atomic_file.hpp"
#include "perft/train/progress.hpp"
#include "perft/train/schedule.hpp"
#include "router_watch.hpp"
#include "run_folder.hpp"
#include "run_log.hpp"
#include "run_origin.hpp"
#include "signals.hpp"
#include "svg_chart.hpp"

namespace perft::cli {

namespace {

class FinetuneRun {
 public:
  using Clock = std::chrono::steady_clock;

  explicit FinetuneRun(const FinetuneOptions& options)
      : options_(options),
        folder_(options.out),
        model_(ModelFiles::open(options.model)),
        prefetch_(prefetch(model_.tensors)) {}

  int run() {
    const auto started = Clock::now();
    const ModelConfig& config = model_.config;
    check<UnsupportedError>(config.router_jitter_noise == 0, model_.config_path, ": router_jitter_noise is ",
                            config.router_jitter_noise, ", training supports 0; set it to 0");
    const bool resuming = options_.resume && folder_.holds_run();
    if (resuming) {
      folder_.open();
    } else {
      folder_.check_free(options_.model);
      if (options_.resume) {
        note(options_.out + ": no run to resume, starting one");
      }
    }
    data_ = load_data(options_, config);
    const auto rows = static_cast<std::int64_t>(data_.train.size());
    std::optional<SavedRun> saved;
    if (resuming) {
      saved.emplace(folder_);
      saved->fill(options_);
    }
    if (!options_.epochs) {
      options_.epochs = kDefaultEpochs;
    }
    const MicroBatchPlan plan = resolve_options(options_, config, data_.stats.longest);
    if (saved) {
      saved->check_same(options_, rows);
    }
    total_steps_ = planned_steps(options_, rows);
    try {
      session_ = with_compute_type(options_, [&]<ComputeType C>() { return make_session<C>(model_, options_, plan); });
    } catch (const ValueError& error) {
      fail<IoError>(model_.config_path, ": ", error.what());
    }
    origin_ = run_origin(data_, model_);
    if (resuming) {
      load_newest();
    }
    if (options_.warmup >= total_steps_) {
      note("--warmup " + std::to_string(options_.warmup) + ": the run has " + std::to_string(total_steps_) +
           " steps, so the learning rate never reaches --lr");
    }
    tables_ = {
        {"What is trained", trained_table(session_->trained_tensors(), parameter_count(model_.tensors))},
        {"Data and plan", data_table(data_, options_) + plan_table(plan, options_, activation_budget(options_))}};
    std::cout << tables_[0].second << "\n" << tables_[1].second << std::flush;
    check<IoError>(std::cout.good(), "stdout: cannot write the tables before step 1; check the disk or the reading ",
                   "program");
    if (progress_.step < total_steps_) {
      defer_signals();
      try {
        if (!resuming) {
          folder_.create(options_.model);
        }
        if (const int signal = train(resuming); signal != 0) {
          return 128 + signal;
        }
      } catch (...) {
        if (!resuming) {
          folder_.discard_unless_saved();
        }
        throw;
      }
    } else {
      finish_saving();
    }
    folder_.publish(progress_.best_step >= 0 ? progress_.best_step : progress_.step, options_.method == Method::full);
    summarize(std::chrono::duration<double>(Clock::now() - started).count());
    return 0;
  }

 private:
  /// Trains from progress_.step to total_steps_. Returns the signal that stopped it, or 0.
  int train(bool resuming) {
    write_text_atomically(folder_.file(kOptionsFile), resolved_config(options_).to_toml());
    if (resuming) {
      folder_.truncate_metrics(progress_.step);
      take_totals();
    }
    RunLog log(folder_, resuming && progress_.step > 0 ? progress_.step : -1, report_facts());
    const bool trained_gate = options_.method == Method::full ||
                              std::count(options_.lora_targets.begin(), options_.lora_targets.end(), "gate") > 0;
    RouterWatch routers(total_steps_, model_.config.num_experts_per_tok, trained_gate, options_.top_k);
    ProgressBar bar;
    if (progress_.step == 0 && !data_.validation.empty()) {
      validate(log, bar);
      if (const int signal = interrupted(); signal != 0) {
        bar.clear();
        note(options_.out + ": stopped by a signal before step 1; --resume starts the run");
        return signal;
      }
    }
    const std::vector<IndexRange> batches = pieces(static_cast<std::int64_t>(data_.train.size()), options_.batch_size);
    const auto per_epoch = static_cast<std::int64_t>(batches.size());
    std::vector<std::int64_t> all(data_.train.size());
    std::iota(all.begin(), all.end(), 0);
    std::int64_t epoch = -1;
    std::vector<std::int64_t> order;
    while (progress_.step < total_steps_) {
      if (progress_.step / per_epoch != epoch) {
        epoch = progress_.step / per_epoch;
        order = epoch_order(all, epoch, static_cast<std::uint64_t>(options_.seed));
      }
      const IndexRange& range = batches[static_cast<std::size_t>(progress_.step % per_epoch)];
      const auto at = static_cast<std::size_t>(range.begin);
      std::vector<EncodedRow> rows;
      for (const std::int64_t i : std::span(order).subspan(at, static_cast<std::size_t>(range.size()))) {
        rows.push_back(data_.train[static_cast<std::size_t>(i)]);
      }
      const double lr = *options_.lr * linear_schedule(progress_.step, options_.warmup, total_steps_);
      const auto begin = Clock::now();
      const StepResult result = take_step(rows, lr, std::span(order).subspan(at, rows.size()));
      const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
      ++progress_.step;
      progress_.train_loss = result.lm;
      progress_.tokens += result.tokens;
      if (progress_.step > 1) {
        timed_.seconds += seconds;
        timed_.tokens += result.tokens;
      }
      log.write({{"step", progress_.step},
                 {"epoch", epoch},
                 {"lr", lr},
                 {"train_loss", result.lm},
                 {"aux_loss", result.aux},
                 {"adapter_aux_loss", result.adapter_aux},
                 {"grad_norm", result.gradient_norm},
                 {"tokens", result.tokens},
                 {"seconds", seconds},
                 {"activation_bytes", static_cast<std::int64_t>(result.saved_bytes)},
                 {"anonymous_bytes", memory_.now()}});
      routers.add(result);
      if (routers.due(progress_.step, total_steps_)) {
        for (const std::vector<MetricField>& line : routers.take(progress_.step, session_->take_lost_updates())) {
          log.write(line);
          show_alarm(line, bar);
        }
      }
      draw(bar, static_cast<double>(result.tokens) / seconds, seconds);
      const auto stepped = Clock::now();
      const bool last = progress_.step == total_steps_;
      bool save = last || progress_.step % options_.save_every == 0;
      if (!data_.validation.empty() && (last || progress_.step % options_.eval_every == 0)) {
        save = validate(log, bar) || save;
      }
      const int signal = last ? 0 : interrupted();  // after validation, which may take long
      if (save || signal != 0) {
        log.sync();  // or a power failure could leave the checkpoint without the lines up to it
        save_state();
        log.report(report_summary());
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

  /// `chosen`: which of the training rows `rows` are.
  StepResult take_step(const std::vector<EncodedRow>& rows, double lr, std::span<const std::int64_t> chosen) {
    try {
      return session_->step(rows, static_cast<std::uint64_t>(progress_.step), lr);
    } catch (const NonFiniteGradient& error) {
      fail<NonFiniteError>(options_.out, ": step ", progress_.step + 1, ": ", error.what(),
                           " (batch: ", list_of_rows(row_numbers(chosen)), "); lower --lr", kept_checkpoint());
    } catch (const NonFiniteError& error) {
      fail<NonFiniteError>(options_.out, ": step ", progress_.step + 1, ": ", error.what(),
                           "; such numbers first appear in ", where_not_finite(rows, row_numbers(chosen)),
                           "; lower --lr or look at the weights and the data", kept_checkpoint());
    }
  }

  /// Prints an alarm the first time one of its kind comes; other lines of metrics.jsonl are not for the screen.
  void show_alarm(const std::vector<MetricField>& line, ProgressBar& bar) {
    if (line.back().first != "alarm") {
      return;
    }
    if (!options_.json && alarms_shown_.insert(std::get<std::string>(line[1].second)).second) {
      bar.clear();
      std::cout << "step " << progress_.step << ": ALARM: " << std::get<std::string>(line.back().second) << std::endl;
    }
  }

  std::optional<std::string> first_non_finite(std::span<const EncodedRow> rows) {
    return session_->first_non_finite(ragged_batch(rows, 0, options_.pad_rows, padded_columns(rows), 0));
  }

  /// The first part of the model, and which of the rows (called `numbers`) suffice for that alone.
  std::string where_not_finite(std::span<const EncodedRow> rows, const std::vector<std::int64_t>& numbers) {
    std::vector<std::int64_t> alone;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (first_non_finite(rows.subspan(i, 1))) {
        alone.push_back(numbers[i]);
      }
    }
    const bool some = !alone.empty() && alone.size() < rows.size();
    return first_non_finite(rows).value_or("the head") + ", for " + list_of_rows(some ? alone : numbers) +
           (some ? "" : ", the whole batch");
  }

  /// Where training rows stand in --data: from 1, through all files.
  std::vector<std::int64_t> row_numbers(std::span<const std::int64_t> chosen) const {
    const RowSplit split = row_split();
    std::vector<std::int64_t> numbers;
    for (const std::int64_t i : chosen) {
      numbers.push_back(split.train[static_cast<std::size_t>(i)] + 1);
    }
    return numbers;
  }

  /// As load_data split them.
  RowSplit row_split() const {
    return split_rows(data_.stats.rows, options_.val_size, static_cast<std::uint64_t>(options_.seed));
  }

  static std::string list_of_rows(std::vector<std::int64_t> numbers) {
    std::sort(numbers.begin(), numbers.end());
    std::string text = numbers.size() == 1 ? "row" : "rows";
    for (const std::int64_t number : numbers) {
      text += (number == numbers.front() ? " " : ", ") + std::to_string(number);
    }
    return text + " of --data";
  }

  /// What a failed run still has, for messages.
  std::string kept_checkpoint() const { return folder_.checkpoints().empty() ? "" : "; the last checkpoint is intact"; }

  std::string where_validation_is_not_finite() {
    const std::vector<std::int64_t> held_back = row_split().validation;
    for (const IndexRange& range : pieces(static_cast<std::int64_t>(data_.validation.size()), options_.batch_size)) {
      const auto rows = std::span<const EncodedRow>(data_.validation)
                            .subspan(static_cast<std::size_t>(range.begin), static_cast<std::size_t>(range.size()));
      if (first_non_finite(rows)) {
        std::vector<std::int64_t> numbers;
        for (std::int64_t i = range.begin; i < range.end; ++i) {
          numbers.push_back(held_back[static_cast<std::size_t>(i)] + 1);
        }
        return where_not_finite(rows, numbers);
      }
    }
    return "the head";
  }

  /// Returns whether this is the best loss so far.
  bool validate(RunLog& log, ProgressBar& bar) {
    // Before step 1 there is nothing to lose: a signal is obeyed at once.
    const bool at_start = progress_.step == 0;
    const ValidationResult result =
        session_->validate(data_.validation, options_.batch_size, [&] { return at_start && interrupted() != 0; });
    if (result.stopped) {
      return false;
    }
    if (!std::isfinite(result.loss)) {
      fail<NonFiniteError>(
          options_.out, ": step ", progress_.step, ": the validation loss is not finite; such numbers first appear in ",
          where_validation_is_not_finite(), "; lower --lr or look at the weights and the data", kept_checkpoint());
    }
    progress_.val_loss = result.loss;
    if (at_start) {
      progress_.start_nll = result.row_nll;
    }
    const Estimate change = validation_change(progress_.start_nll, result);
    log.write({{"step", progress_.step},
               {"val_loss", result.loss},
               {"val_standard_error", result.standard_error},
               {"val_change", change.value},
               {"val_change_standard_error", change.standard_error}});
    if (!options_.json) {
      bar.clear();
      std::cout
          << fmt::format("step {}: validation loss {:.5f} ± {:.5f}", progress_.step, result.loss, result.standard_error)
          << (at_start ? "" : fmt::format("   ({:+.5f} ± {:.5f} since the start)", change.value, change.standard_error))
          << std::endl;
    }
    const bool best = progress_.step > 0 && (progress_.best_step < 0 || result.loss < progress_.best_loss);
    if (best) {
      progress_.best_step = progress_.step;
      progress_.best_loss = result.loss;
    }
    return best;
  }

  ReportFacts report_facts() const {
    return {options_.out, {}, configuration_facts(options_), environment_facts(), tables_};
  }

  /// The large numbers of report.html.
  std::vector<std::pair<std::string, std::string>> report_summary() const {
    std::vector<std::pair<std::string, std::string>> summary{
        {"step of " + std::to_string(total_steps_), std::to_string(progress_.step)},
        {"train loss", short_number(progress_.train_loss)}};
    if (!data_.validation.empty()) {
      summary.push_back({"validation loss", short_number(progress_.val_loss)});
    }
    if (progress_.best_step >= 0) {
      summary.push_back(
          {"best validation loss, step " + std::to_string(progress_.best_step), short_number(progress_.best_loss)});
    }
    if (timed_.seconds > 0) {
      summary.push_back({"tokens per second", short_number(tokens_per_second())});
    }
    summary.push_back({"GB of anonymous memory at most", short_number(static_cast<double>(most_anonymous()) * 1e-9)});
    return summary;
  }

  /// With the weights' print, which is taken when it is needed.
  const RunOrigin& origin() {
    if (!weights_printed_) {
      origin_.weights_print = print_of_weights(model_);
      weights_printed_ = true;
    }
    return origin_;
  }

  void save_state() {
    progress_.origin = origin();
    folder_.save_checkpoint(progress_.step, [&](const std::string& dir) { session_->save(dir, progress_); });
    folder_.prune(options_.keep, progress_.best_step);
  }

  /// The state of the newest checkpoint, if there is one.
  void load_newest() {
    const std::vector<std::int64_t> steps = folder_.checkpoints();
    if (steps.empty()) {
      note(options_.out + ": no checkpoint to resume from, starting anew");
      return;
    }
    const std::string checkpoint = folder_.checkpoint(steps.back());
    progress_ = session_->load(checkpoint, steps.back());
    std::string files;
    for (const std::string& file : options_.data) {
      files += (files.empty() ? "" : ",") + file;
    }
    check_same_origin(progress_.origin, origin(), files, options_.model, checkpoint);
    note("resuming from " + checkpoint);
  }

  /// What a run that was killed after its last checkpoint had left to do; nothing for a finished one.
  void finish_saving() {
    folder_.prune(options_.keep, progress_.best_step);
    take_totals();
    if (folder_.report_is_old(progress_.step)) {
      folder_.truncate_metrics(progress_.step);
      RunLog(folder_, progress_.step, report_facts()).report(report_summary());
    }
  }

  /// What the steps before this process took.
  void take_totals() { timed_ = folder_.metric_totals(); }

  std::int64_t most_anonymous() const { return std::max(memory_.peak(), timed_.most_anonymous_bytes); }

  double tokens_per_second() const {
    return timed_.seconds > 0 ? static_cast<double>(timed_.tokens) / timed_.seconds : 0.0;
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
    progress.memory_bytes = most_anonymous();
    bar.draw(progress, progress_.step == total_steps_);
  }

  void summarize(double wall_seconds) {
    OrderedJson json;
    json["steps"] = progress_.step;
    json["tokens"] = progress_.tokens;
    json["tokens_per_second"] = tokens_per_second();
    json["train_loss"] = progress_.train_loss;
    json["val_loss"] = data_.validation.empty() ? OrderedJson() : OrderedJson(progress_.val_loss);
    json["best_val_loss"] = progress_.best_step < 0 ? OrderedJson() : OrderedJson(progress_.best_loss);
    std::int64_t trainable = 0;
    for (const TrainedTensor& tensor : session_->trained_tensors()) {
      trainable += tensor.parameters;
    }
    json["trainable_parameters"] = trainable;
    json["peak_rss_bytes"] = peak_resident_memory();
    json["peak_anonymous_bytes"] = most_anonymous();
    json["wall_seconds"] = wall_seconds;
    if (options_.json) {
      std::cout << json.dump() << "\n";
    } else {
      std::cout << "steps " << progress_.step << ", train loss " << progress_.train_loss;
      if (progress_.best_step >= 0) {
        std::cout << ", best validation loss " << progress_.best_loss << " (step " << progress_.best_step << ")";
      }
      if (timed_.seconds > 0) {
        std::cout << ", " << tokens_per_second() << " tokens/s";
      }
      std::cout << "; saved to " << options_.out << "\n";
    }
  }

  FinetuneOptions options_;
  RunFolder folder_;
  ModelFiles model_;
  std::unique_ptr<Prefetch> prefetch_;
  FinetuneData data_;
  std::unique_ptr<FinetuneSession> session_;
  RunProgress progress_;
  RunOrigin origin_;
  bool weights_printed_ = false;
  std::int64_t total_steps_ = 0;
  AnonymousMemory memory_;
  std::set<std::string> alarms_shown_;
  RunFolder::Totals timed_;  // of the whole run, other processes' steps included
  double smoothed_ = 0;
  double beside_steps_ = 0;  // seconds of validation and saving in this process
  std::int64_t steps_here_ = 0;
  std::vector<std::pair<std::string, std::string>> tables_;  // printed before step 1: heading and text
};

}  // namespace

int run_finetune(const FinetuneOptions& options) {
  apply_threads(options);
  return FinetuneRun(options).run();
}

}  // namespace perft::cli

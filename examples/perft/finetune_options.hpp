#pragma once
// The options of `perft finetune` as the library's own structs, and against those of a saved run.

#include <cstdint>  // steps
#include <string>   // paths

#include "options.hpp"
#include "perft/models/config.hpp"
#include "perft/peft/adapter_spec.hpp"
#include "perft/train/memory_plan.hpp"
#include "perft/train/trainer.hpp"
#include "run_folder.hpp"

namespace perft::cli {

/// The options as an AdapterSpec; not for method full.
AdapterSpec adapter_spec(const FinetuneOptions& options);

/// The sizes that decide the memory of a run with these (resolved) options.
ActivationShape training_shape(const FinetuneOptions& options, const ModelConfig& config);

/// Fills what depends on the model: learning rate, aux coefficient, perft-e's experts, compute type, micro-batch (rows
/// that fit the memory budget). Returns the plan.
MicroBatchPlan resolve_options(FinetuneOptions& options, const ModelConfig& config, std::int64_t longest_row);

/// Bytes of activations that a micro-batch may take: --memory-budget, or half of what the machine has.
std::int64_t activation_budget(const FinetuneOptions& options);

/// What the trainer is told; `options` are resolved.
TrainerOptions trainer_options(const FinetuneOptions& options, const MicroBatchPlan& plan);

/// Optimizer steps of a run on `rows` training rows.
std::int64_t planned_steps(const FinetuneOptions& options, std::int64_t rows);

/// The options in run.toml of a run that is resumed.
class SavedRun {
 public:
  /// Throws IoError as read_run_config does, and if there is no run.toml.
  explicit SavedRun(const RunFolder& folder);

  /// Fills what was not given and a resumed run takes over: the micro-batch (another cut would round, and weigh aux,
  /// differently), steps and epochs.
  void fill(FinetuneOptions& now) const;

  /// Throws IoError unless `now` (resolved) equals the saved options but for the folder's own name, threads, steps,
  /// epochs and the budget, or if it has fewer steps on `rows` training rows: its schedule is behind it.
  void check_same(const FinetuneOptions& now, std::int64_t rows) const;

 private:
  std::string path_;
  FinetuneOptions options_;
};

}  // namespace perft::cli

#pragma once
// What a fine-tuning run asks of a model in training, whatever its compute type.

#include <cstdint>     // counters
#include <functional>  // when to stop
#include <optional>    // no fault found
#include <span>        // rows
#include <string>      // folders
#include <vector>      // trained tensors

#include "perft/core/batch.hpp"
#include "perft/data/batch.hpp"
#include "perft/train/memory_plan.hpp"
#include "perft/train/trainer.hpp"

namespace perft::cli {

/// Where a run stands after an optimizer step. Everything random is a function of (seed, step), so there is no more.
struct RunProgress {
  std::int64_t step = 0;        // optimizer steps done
  std::int64_t best_step = -1;  // of the best validation loss; −1: none yet
  double best_loss = 0;
  double train_loss = 0;  // of the last step
  double val_loss = 0;    // of the last validation
  std::int64_t tokens = 0;
};

/// A trained tensor, for the table printed before step 1.
struct TrainedTensor {
  std::string name;
  std::int64_t parameters = 0;
};

/// Made by make_session<C> (engine_commands.hpp).
class FinetuneSession {
 public:
  FinetuneSession() = default;
  virtual ~FinetuneSession() = default;
  FinetuneSession(const FinetuneSession&) = delete;
  FinetuneSession& operator=(const FinetuneSession&) = delete;

  virtual std::vector<TrainedTensor> trained_tensors() const = 0;

  /// As Trainer::step and Trainer::validate.
  virtual StepResult step(std::span<const EncodedRow> rows, std::uint64_t step, double lr) = 0;
  virtual ValidationResult validate(std::span<const EncodedRow> rows, std::int64_t batch_rows,
                                    const std::function<bool()>& stop) = 0;

  /// As LostUpdates::take_share of the steps since the last call.
  virtual double take_lost_updates() = 0;

  /// As CausalLm::first_non_finite.
  virtual std::optional<std::string> first_non_finite(const Batch& batch) = 0;

  /// Writes the trained weights and training_state.safetensors into the folder `dir`.
  virtual void save(const std::string& dir, const RunProgress& progress) = 0;

  /// Takes up what save() wrote after optimizer step `step`. Throws IoError.
  virtual RunProgress load(const std::string& dir, std::int64_t step) = 0;
};

}  // namespace perft::cli

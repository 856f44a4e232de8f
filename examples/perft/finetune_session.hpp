#pragma once
// What a fine-tuning run asks of a model in training, whatever its compute type.

#include <array>       // numbers
#include <cstdint>     // counters
#include <functional>  // when to stop
#include <optional>    // no fault found
#include <span>        // rows
#include <string>      // folders
#include <vector>      // trained tensors

#include "perft/core/batch.hpp"
#include "perft/data/batch.hpp"
#include "perft/train/lost_updates.hpp"
#include "perft/train/memory_plan.hpp"
#include "perft/train/trainer.hpp"

namespace perft::cli {

/// What a run was begun with, in a few numbers that a checkpoint keeps: a run goes on only with the same.
struct RunOrigin {
  std::int64_t train_rows = 0;
  std::int64_t validation_rows = 0;
  std::int64_t train_print = 0;  // fingerprint of ids and labels, row by row
  std::int64_t validation_print = 0;
  std::int64_t config_print = 0;   // of config.json's values
  std::int64_t weights_print = 0;  // of the base's tensors: names, types, shapes and both ends of the data of each

  static constexpr std::size_t kNumbers = 6;

  std::array<std::int64_t, kNumbers> numbers() const {
    return {train_rows, validation_rows, train_print, validation_print, config_print, weights_print};
  }

  static RunOrigin from(const std::array<std::int64_t, kNumbers>& n) { return {n[0], n[1], n[2], n[3], n[4], n[5]}; }
};

/// Where a run stands after an optimizer step. Everything random is a function of (seed, step), so there is no more.
struct RunProgress {
  std::int64_t step = 0;        // optimizer steps done
  std::int64_t best_step = -1;  // of the best validation loss; −1: none yet
  double best_loss = 0;
  double train_loss = 0;  // of the last step
  double val_loss = 0;    // of the last validation
  std::int64_t tokens = 0;
  RunOrigin origin;
  std::vector<double> start_nll = {};  // of the held-back rows before step 1; empty without any
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

  /// As LostUpdates::take, of the steps with a learning rate since the last call.
  virtual LostShare take_lost_updates() = 0;

  /// As CausalLm::first_non_finite.
  virtual std::optional<std::string> first_non_finite(const Batch& batch) = 0;

  /// Writes the trained weights and training_state.safetensors into the folder `dir`.
  virtual void save(const std::string& dir, const RunProgress& progress) = 0;

  /// Takes up what save() wrote after optimizer step `step`. Throws IoError.
  virtual RunProgress load(const std::string& dir, std::int64_t step) = 0;
};

}  // namespace perft::cli

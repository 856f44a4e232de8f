#pragma once
// The folder of a fine-tuning run: run.toml, metrics.jsonl, checkpoint-<step>/, and at the end the adapter itself.

#include <cstdint>       // steps
#include <functional>    // what writes a checkpoint
#include <memory>        // the lock
#include <string>        // paths
#include <system_error>  // reasons
#include <vector>        // steps

#include "run_lock.hpp"

namespace perft::cli {

inline constexpr const char* kOptionsFile = "run.toml";
inline constexpr const char* kMetricsFile = "metrics.jsonl";
inline constexpr const char* kReportFile = "report.html";
/// TensorBoard reads what has "tfevents" in its name.
inline constexpr const char* kEventFile = "events.out.tfevents.perft";

class RunFolder {
 public:
  explicit RunFolder(std::string path) : path_(std::move(path)) {}

  /// Throws IoError if another process works in the folder, or the path holds a run already, is not a folder, is the
  /// folder `model`, or holds a file or a checkpoint folder that the run would replace.
  void check_free(const std::string& model) const;

  /// Makes the folder (with parents) for a new run, locks it and removes what a killed run left half written. Throws
  /// IoError as check_free does, or if the folder cannot be made or another process holds it.
  void create(const std::string& model);

  /// Locks the folder of a run that is resumed and removes what a killed run left half written. Throws IoError if
  /// another process holds it.
  void open();

  /// Takes back what a new run has written if it failed before its first checkpoint: the files named above, and the
  /// folders that create() made. Nothing of another run is touched.
  void discard_unless_saved();

  /// Whether a run was begun here.
  bool holds_run() const;

  std::string file(const std::string& name) const { return path_ + "/" + name; }

  const std::string& path() const { return path_; }

  std::string checkpoint(std::int64_t step) const { return path_ + "/checkpoint-" + std::to_string(step); }

  /// Steps of the complete checkpoints, ascending.
  std::vector<std::int64_t> checkpoints() const;

  /// Lets `write(folder)` fill a temporary folder and renames it to checkpoint-<step>: it is there whole or not at all,
  /// and durable when this returns. Throws IoError; then all older checkpoints are as they were.
  void save_checkpoint(std::int64_t step, const std::function<void(const std::string&)>& write) const;

  /// Removes all but the `keep` newest checkpoints and `best` (−1: none): each is renamed first, so that what is called
  /// a checkpoint stays a whole one. Throws IoError if that fails.
  void prune(std::int64_t keep, std::int64_t best) const;

  /// Puts the result into the folder itself: the files of checkpoint-<step>, an adapter's or a whole model's. What is
  /// there already stays untouched. Throws IoError if the checkpoint is gone and so is a file that the result needs.
  void publish(std::int64_t step, bool whole_model) const;

  /// Whether report.html is older than checkpoint-<step>, or missing: the run was killed between the two.
  bool report_is_old(std::int64_t step) const;

  /// Drops the lines of metrics.jsonl that belong to steps after `step`; all of them if that is 0.
  void truncate_metrics(std::int64_t step) const;

  /// Sums over metrics.jsonl.
  struct Totals {
    double seconds = 0;  // of the steps after the first
    std::int64_t tokens = 0;
    std::int64_t most_anonymous_bytes = 0;  // of all steps
  };

  Totals metric_totals() const;

 private:
  /// check_free, but for the lock.
  void check_run_free(const std::string& model) const;

  /// Renames a folder in this one to a temporary name, which is returned; nothing may be half there under a real one.
  std::string set_aside(const std::string& folder, std::error_code& error) const;

  /// Removes temporary files and folders. Under the lock they are nobody's.
  void remove_leftovers() const;

  std::string path_;
  std::vector<std::string> made_;  // by create(), outermost first
  std::unique_ptr<RunLock> lock_;
  bool begun_ = false;  // by create(): what is in the folder is this run's
};

}  // namespace perft::cli

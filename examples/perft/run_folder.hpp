#pragma once
// The folder of a fine-tuning run: run.toml, metrics.jsonl, checkpoint-<step>/, and at the end the adapter itself.

#include <cstdint>     // steps
#include <functional>  // what writes a checkpoint
#include <optional>    // newest checkpoint
#include <string>      // paths
#include <vector>      // steps

namespace perft::cli {

inline constexpr const char* kOptionsFile = "run.toml";
inline constexpr const char* kMetricsFile = "metrics.jsonl";
inline constexpr const char* kReportFile = "report.html";
/// TensorBoard reads what has "tfevents" in its name.
inline constexpr const char* kEventFile = "events.out.tfevents.perft";

class RunFolder {
 public:
  explicit RunFolder(std::string path) : path_(std::move(path)) {}

  /// Throws IoError if the path holds a run already, is not a folder, is the folder `model`, or holds a file or a
  /// checkpoint folder that the run would replace.
  void check_free(const std::string& model) const;

  /// Makes the folder (with parents) for a new run. Throws IoError as check_free does, or if it cannot be made.
  void create(const std::string& model);

  /// Takes back what a new run has written if it failed before its first checkpoint: the files named above, and the
  /// folders that create() made.
  void discard_unless_saved() const;

  /// Whether a run was begun here.
  bool holds_run() const;

  std::string file(const std::string& name) const { return path_ + "/" + name; }

  const std::string& path() const { return path_; }

  std::string checkpoint(std::int64_t step) const { return path_ + "/checkpoint-" + std::to_string(step); }

  /// Steps of the complete checkpoints, ascending.
  std::vector<std::int64_t> checkpoints() const;

  /// Lets `write(folder)` fill a temporary folder and renames it to checkpoint-<step>: it is there whole or not at all.
  void save_checkpoint(std::int64_t step, const std::function<void(const std::string&)>& write) const;

  /// Removes all but the `keep` newest checkpoints and `best` (−1: none), and what an interrupted save left behind.
  void prune(std::int64_t keep, std::int64_t best) const;

  /// Puts the result into the folder itself: the files of checkpoint-<step>, an adapter's or a whole model's. What is
  /// there already stays untouched. Throws IoError if the checkpoint is gone and so is a file that the result needs.
  void publish(std::int64_t step, bool whole_model) const;

  /// Drops the lines of metrics.jsonl that belong to steps after `step`; all of them if that is 0.
  void truncate_metrics(std::int64_t step) const;

 private:
  std::string path_;
  std::vector<std::string> made_;  // by create(), outermost first
};

}  // namespace perft::cli

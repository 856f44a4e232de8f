#pragma once
// What a run writes to be watched: metrics.jsonl, a TensorBoard event file and report.html.

#include <cstdint>  // steps
#include <string>   // paths
#include <utility>  // pairs
#include <vector>   // fields

#include "options.hpp"
#include "perft/io/event_file.hpp"
#include "perft/train/metrics.hpp"
#include "report.hpp"
#include "run_folder.hpp"

namespace perft::cli {

/// The machine and the program, for a report: processor, instruction set, threads, memory, version.
std::vector<std::pair<std::string, std::string>> environment_facts();

/// A run's options as a report shows them, one row each.
std::vector<std::pair<std::string, std::string>> configuration_facts(const FinetuneOptions& options);

class RunLog {
 public:
  /// Continues the files after `last_step`, or starts them anew if it is −1. `facts` without a summary. Throws IoError.
  RunLog(const RunFolder& folder, std::int64_t last_step, ReportFacts facts);

  /// One line of metrics.jsonl and one event; the first field is the step. Throws as MetricsWriter does.
  void write(const std::vector<MetricField>& fields);

  /// Makes metrics and events durable. Throws IoError.
  void sync();

  /// Writes report.html anew with these large numbers at its top. Throws IoError.
  void report(std::vector<std::pair<std::string, std::string>> summary);

 private:
  std::string metrics_path_;
  std::string report_path_;
  ReportFacts facts_;
  MetricsWriter metrics_;
  EventFile events_;
};

}  // namespace perft::cli

// What a run writes to be watched.

#include "run_log.hpp"

#include <chrono>   // wall time
#include <fstream>  // the processor's name
#include <numeric>  // std::accumulate
#include <variant>  // fields

#include "memory_use.hpp"
#include "perft/core/cpu_features.hpp"
#include "perft/core/parallel.hpp"
#include "perft/io/atomic_file.hpp"
#include "perft/io/mapped_file.hpp"

namespace perft::cli {

namespace {

double seconds_since_1970() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name") && line.find(':') + 2 < line.size()) {
      return line.substr(line.find(':') + 2);
    }
  }
  return "unknown";
}

}  // namespace

std::vector<std::pair<std::string, std::string>> environment_facts() {
  return {{"program", "perft " PERFT_VERSION},
          {"processor", processor_name()},
          {"instruction set", std::string(isa_name(active_isa()))},
          {"threads", std::to_string(ThreadPool::global().threads())},
          {"memory", std::to_string(machine_memory() / 1'000'000) + " MB"}};
}

std::vector<std::pair<std::string, std::string>> configuration_facts(const FinetuneOptions& options) {
  std::vector<std::pair<std::string, std::string>> rows;
  const RunConfig config = resolved_config(options);
  for (const RunConfig::Entry& entry : config.entries()) {
    rows.push_back({entry.name, RunConfig::value_text(entry.value)});
  }
  return rows;
}

RunLog::RunLog(const RunFolder& folder, std::int64_t last_step, ReportFacts facts)
    : metrics_path_(folder.file(kMetricsFile)),
      report_path_(folder.file(kReportFile)),
      facts_(std::move(facts)),
      metrics_(metrics_path_, last_step < 0),
      events_(folder.file(kEventFile), last_step, seconds_since_1970()) {}

void RunLog::write(const std::vector<MetricField>& fields) {
  metrics_.write(fields);
  std::int64_t step = 0;
  std::string router;
  std::vector<EventScalar> scalars;
  for (const auto& [name, value] : fields) {
    if (name == "step") {
      step = std::get<std::int64_t>(value);
    } else if (name == "router") {
      router = std::get<std::string>(value);
    } else if (const auto* layers = std::get_if<std::vector<double>>(&value)) {
      // A curve per layer would bury the others: the layers' mean.
      if (name != "load") {
        const double sum = std::accumulate(layers->begin(), layers->end(), 0.0);
        scalars.push_back({"router/" + router + "_" + std::string(name), sum / static_cast<double>(layers->size())});
      }
    } else if (!std::holds_alternative<std::string>(value) && router.empty()) {
      const bool validation = name.starts_with("val_");
      const std::string_view rest = name.substr(validation ? 4 : name.starts_with("train_") ? 6 : 0);
      const auto* integer = std::get_if<std::int64_t>(&value);
      scalars.push_back({(validation ? "validation/" : "train/") + std::string(rest),
                         integer != nullptr ? static_cast<double>(*integer) : std::get<double>(value)});
    }
  }
  if (!scalars.empty()) {
    events_.write(step, seconds_since_1970(), scalars);
  }
}

void RunLog::sync() {
  metrics_.sync();
  events_.sync();
}

void RunLog::report(std::vector<std::pair<std::string, std::string>> summary) {
  facts_.summary = std::move(summary);
  write_text_atomically(report_path_, run_report(facts_, read_text_file(metrics_path_)));
}

}  // namespace perft::cli

#pragma once
// `report.html` of a run: one file that opens anywhere, drawn from metrics.jsonl.

#include <string>   // HTML
#include <utility>  // pairs
#include <vector>   // rows

namespace perft::cli {

/// Everything a report shows beside the curves.
struct ReportFacts {
  std::string title;                                               // the run's folder
  std::vector<std::pair<std::string, std::string>> summary;        // name and value, large, at the top
  std::vector<std::pair<std::string, std::string>> configuration;  // run.toml's options
  std::vector<std::pair<std::string, std::string>> environment;    // machine, program, threads
  std::vector<std::pair<std::string, std::string>> tables;         // heading and preformatted text
};

/// The style sheet of perft's pages.
const char* report_style();

/// A whole HTML page without a link to anything. `metrics` is metrics.jsonl's text; lines that are no JSON object with
/// a step (the last line of a killed run) are left out.
std::string run_report(const ReportFacts& facts, const std::string& metrics);

}  // namespace perft::cli

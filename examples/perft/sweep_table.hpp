#pragma once
// What a sweep found, as a table: on the terminal, as CSV, as Markdown and as a page.

#include <cstdint>   // steps
#include <map>       // options
#include <optional>  // what a run may not have
#include <string>    // texts
#include <utility>   // pairs
#include <vector>    // cells

#include "perft/io/json.hpp"
#include "sweep_grid.hpp"

namespace perft::cli {

enum class CellState { waiting, stopped, failed, finished };

/// A cell and what its run left.
struct CellResult {
  std::string name;
  std::map<std::string, std::string> varied;
  CellState state = CellState::waiting;
  std::string error;  // failed: the run's one line
  std::int64_t trainable_parameters = 0;
  std::int64_t steps = 0;
  double train_loss = 0;                // of the last step
  std::optional<double> best_val_loss;  // none with --val-size 0
  double val_standard_error = 0;        // of the same validation
  std::int64_t best_step = 0;
  double tokens_per_second = 0;  // of the steps after the first
  double wall_seconds = 0;       // of all processes that worked on the cell
  std::int64_t peak_anonymous_bytes = 0;
};

/// Losses, steps and speed from the metrics.jsonl text of a run.
void read_metrics(const std::string& metrics, CellResult& result);

/// Finished cells by best validation loss (by train loss where there is none), then the others as they come.
std::vector<CellResult> ranked(std::vector<CellResult> results);

std::string state_name(CellState state);

/// For a terminal; `results` ranked.
std::string sweep_text(const std::vector<CellResult>& results);

/// One line a cell, the varied options as columns of their own; numbers in full.
std::string sweep_csv(const std::vector<CellResult>& results, const SweepGrid& grid);

std::string sweep_markdown(const std::vector<CellResult>& results, const SweepGrid& grid);

/// A page that needs nothing beside it; cells link to their own reports.
std::string sweep_html(const std::string& title, const std::vector<CellResult>& results, const SweepGrid& grid);

OrderedJson sweep_json(const std::vector<CellResult>& results, const SweepGrid& grid);

/// The reasons for cells that are left out, each with its number of cells and the first of them.
std::vector<std::string> left_out_lines(const SweepGrid& grid);

}  // namespace perft::cli

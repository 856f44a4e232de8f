// What a sweep found, as a table.

#include "sweep_table.hpp"

#include <fmt/format.h>  // columns

#include <algorithm>  // std::stable_sort
#include <array>      // columns
#include <sstream>    // lines

#include "digits.hpp"
#include "perft/train/run_config.hpp"  // real_text
#include "report.hpp"
#include "report_error.hpp"
#include "svg_chart.hpp"

namespace perft::cli {

namespace {

constexpr const char* kSweepStyle = R"(
.sweep td, .sweep th { padding: .2rem .9rem .2rem 0; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); color: var(--ink); }
.sweep th { color: var(--soft); font-weight: 500; } .sweep td:first-child, .sweep th:first-child { text-align: left; } .sweep a { color: inherit; }
.sweep .best td { font-weight: 600; } .sweep .reason { text-align: left; white-space: normal; color: var(--soft); } .wide { overflow-x: auto; } .chart { max-width: 720px; }
)";

/// More lines than this in one chart are not told apart by colour.
constexpr std::size_t kMostNamedLines = 4;

bool is_finished(const CellResult& result) {
  return result.state == CellState::finished;
}

struct Column {
  const char* heading;
  std::string (*text)(const CellResult&);
};

std::string loss_text(double loss) {
  return fmt::format("{:.5f}", loss);
}

/// What tables show of a finished cell beside its name.
const std::array<Column, 7> kColumns = {{
    {"trained", [](const CellResult& r) { return with_commas(r.trainable_parameters); }},
    {"val loss", [](const CellResult& r) { return r.best_val_loss ? loss_text(*r.best_val_loss) : std::string("-"); }},
    {"± s.e.",
     [](const CellResult& r) { return r.best_val_loss ? loss_text(r.val_standard_error) : std::string("-"); }},
    {"at step",
     [](const CellResult& r) { return r.best_val_loss ? std::to_string(r.best_step) : std::to_string(r.steps); }},
    {"train loss", [](const CellResult& r) { return loss_text(r.train_loss); }},
    {"tokens/s", [](const CellResult& r) { return fmt::format("{:.1f}", r.tokens_per_second); }},
    {"wall s", [](const CellResult& r) { return fmt::format("{:.1f}", r.wall_seconds); }},
}};

/// Columns that a terminal shows, which counts "±" as one.
std::size_t width_of(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

std::string padded(const std::string& text, std::size_t width, bool left) {
  const std::string space(width - std::min(width, width_of(text)), ' ');
  return left ? text + space : space + text;
}

/// A field of a CSV line: quoted where it must be.
std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) {
    return text;
  }
  std::string out = "\"";
  for (const char c : text) {
    out += c == '"' ? std::string("\"\"") : std::string(1, c);
  }
  return out + "\"";
}

/// A cell of a Markdown table.
std::string markdown_field(const std::string& text) {
  std::string out;
  for (const char c : one_line(text)) {
    out += c == '|' ? std::string("\\|") : std::string(1, c);
  }
  return out;
}

/// Validation loss by trained parameters: a line, with its name above, for each combination of all other options than
/// --rank if there are few, else dots.
std::string loss_chart(const std::vector<CellResult>& results, const SweepGrid& grid) {
  std::vector<std::string> names;
  std::vector<ChartLine> lines;
  std::vector<ChartLine> dots;
  for (const CellResult& r : results) {
    if (!is_finished(r) || !r.best_val_loss) {
      continue;
    }
    std::string name;
    for (const std::string& key : grid.keys) {
      if (const auto found = r.varied.find(key); found != r.varied.end() && key != "rank") {
        name += (name.empty() ? "" : ", ") + (key == "method" ? "" : key + " ") + found->second;
      }
    }
    const ChartPoint point{static_cast<double>(r.trainable_parameters), *r.best_val_loss, r.val_standard_error};
    const auto at = static_cast<std::size_t>(std::find(names.begin(), names.end(), name) - names.begin());
    if (at == names.size()) {
      names.push_back(name);
      lines.push_back({"", {}, true});
    }
    lines[at].points.push_back(point);
    dots.push_back({"", {point}, true});
  }
  for (ChartLine& line : lines) {
    std::sort(line.points.begin(), line.points.end(),
              [](const ChartPoint& a, const ChartPoint& b) { return a.x < b.x; });
  }
  const bool named = lines.size() <= kMostNamedLines;
  std::string html;
  for (std::size_t i = 0; named && lines.size() > 1 && i < lines.size(); ++i) {
    html += fmt::format("<span style=\"color:{}\">&#9679;</span> {}<br>\n", line_colour(i), escaped(names[i]));
  }
  return (html.empty() ? "" : "<p>" + html + "</p>\n") + "<div class=\"chart\">\n" +
         line_chart("Best validation loss ± standard error", "trained parameters", "", named ? lines : dots) +
         "</div>\n";
}

}  // namespace

void read_metrics(const std::string& metrics, CellResult& result) {
  double seconds = 0;
  std::int64_t tokens = 0;
  std::istringstream lines(metrics);
  for (std::string text; std::getline(lines, text);) {
    const Json line = Json::parse(text, nullptr, false);
    if (!line.is_object() || !line.contains("step") || !line["step"].is_number_integer()) {
      continue;  // the last line of a killed run
    }
    const auto step = line["step"].get<std::int64_t>();
    const auto number = [&line](const char* key) {
      return line.contains(key) && line[key].is_number() ? line[key].get<double>() : 0.0;
    };
    if (line.contains("val_loss")) {
      if (step > 0 && (!result.best_val_loss || number("val_loss") < *result.best_val_loss)) {
        result.best_val_loss = number("val_loss");
        result.val_standard_error = number("val_standard_error");
        result.best_step = step;
      }
    } else if (line.contains("train_loss")) {
      result.steps = step;
      result.train_loss = number("train_loss");
      if (step > 1) {
        seconds += number("seconds");
        tokens += static_cast<std::int64_t>(number("tokens"));
      }
    }
  }
  result.tokens_per_second = seconds > 0 ? static_cast<double>(tokens) / seconds : 0;
}

std::vector<CellResult> ranked(std::vector<CellResult> results) {
  std::stable_sort(results.begin(), results.end(), [](const CellResult& a, const CellResult& b) {
    if (is_finished(a) != is_finished(b)) {
      return is_finished(a);
    }
    if (!is_finished(a)) {
      return false;
    }
    if (a.best_val_loss.has_value() != b.best_val_loss.has_value()) {
      return a.best_val_loss.has_value();
    }
    return a.best_val_loss ? *a.best_val_loss < *b.best_val_loss : a.train_loss < b.train_loss;
  });
  return results;
}

std::string state_name(CellState state) {
  switch (state) {
    case CellState::waiting:
      return "waiting";
    case CellState::stopped:
      return "stopped";
    case CellState::failed:
      return "failed";
    case CellState::finished:
      break;
  }
  return "finished";
}

std::string sweep_text(const std::vector<CellResult>& results) {
  std::vector<std::vector<std::string>> table{{"cell"}};
  for (const Column& column : kColumns) {
    table[0].push_back(column.heading);
  }
  for (const CellResult& r : results) {
    table.push_back({r.name});
    if (!is_finished(r)) {
      table.back().push_back(state_name(r.state) + (r.error.empty() ? "" : ": " + one_line(r.error)));
      continue;
    }
    for (const Column& column : kColumns) {
      table.back().push_back(column.text(r));
    }
  }
  std::vector<std::size_t> widths(table[0].size());
  for (const auto& line : table) {
    for (std::size_t i = 0; i < line.size(); ++i) {
      widths[i] = line.size() == widths.size() || i == 0 ? std::max(widths[i], width_of(line[i])) : widths[i];
    }
  }
  std::string out;
  for (const auto& line : table) {
    std::string text = padded(line[0], widths[0], true);
    for (std::size_t i = 1; i < line.size(); ++i) {
      text += "  " + (line.size() == widths.size() ? padded(line[i], widths[i], false) : line[i]);
    }
    out += text + "\n";
  }
  return out;
}

std::string sweep_csv(const std::vector<CellResult>& results, const SweepGrid& grid) {
  std::string out = "cell";
  for (const std::string& key : grid.keys) {
    out += "," + csv_field(key);
  }
  out +=
      ",state,trainable_parameters,best_val_loss,val_standard_error,best_step,steps,train_loss,tokens_per_second,"
      "wall_seconds,peak_anonymous_bytes,error\n";
  for (const CellResult& r : results) {
    std::vector<std::string> fields{r.name};
    for (const std::string& key : grid.keys) {
      const auto found = r.varied.find(key);
      fields.push_back(found == r.varied.end() ? "" : found->second);
    }
    fields.push_back(state_name(r.state));
    if (is_finished(r)) {
      const bool validated = r.best_val_loss.has_value();
      for (const std::string& field :
           {std::to_string(r.trainable_parameters), validated ? real_text(*r.best_val_loss) : std::string(),
            validated ? real_text(r.val_standard_error) : std::string(),
            validated ? std::to_string(r.best_step) : std::string(), std::to_string(r.steps), real_text(r.train_loss),
            real_text(r.tokens_per_second), real_text(r.wall_seconds), std::to_string(r.peak_anonymous_bytes)}) {
        fields.push_back(field);
      }
    } else {
      fields.insert(fields.end(), 9, "");
    }
    fields.push_back(one_line(r.error));
    for (std::size_t i = 0; i < fields.size(); ++i) {
      out += (i == 0 ? "" : ",") + csv_field(fields[i]);
    }
    out += "\n";
  }
  return out;
}

std::string sweep_markdown(const std::vector<CellResult>& results, const SweepGrid& grid) {
  std::string out = "| cell |";
  std::string rule = "|---|";
  for (const Column& column : kColumns) {
    out += fmt::format(" {} |", column.heading);
    rule += "---:|";
  }
  out += "\n" + rule + "\n";
  for (const CellResult& r : results) {
    if (is_finished(r)) {
      out += "| " + r.name + " |";
      for (const Column& column : kColumns) {
        out += " " + column.text(r) + " |";
      }
      out += "\n";
    }
  }
  for (const CellResult& r : results) {
    if (!is_finished(r)) {
      out += fmt::format("\n{}: {}{}\n", r.name, state_name(r.state),
                         r.error.empty() ? "" : ": " + markdown_field(r.error));
    }
  }
  for (const std::string& line : left_out_lines(grid)) {
    out += "\n" + line + "\n";
  }
  return out;
}

std::string sweep_html(const std::string& title, const std::vector<CellResult>& results, const SweepGrid& grid) {
  const auto finished = static_cast<std::size_t>(std::count_if(results.begin(), results.end(), is_finished));
  std::string html =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width, initial-scale=1\"><title>perft: " +
      escaped(title) + "</title><style>" + report_style() + kSweepStyle + "</style></head><body>\n<h1>" +
      escaped(title) + "</h1>\n<div class=\"cards\">\n";
  const auto card = [&html](const std::string& value, const std::string& name) {
    html += "<div><b>" + escaped(value) + "</b><span>" + escaped(name) + "</span></div>\n";
  };
  card(fmt::format("{} of {}", finished, results.size()), "cells finished");
  if (finished > 0) {
    const CellResult& best = results[0];
    card(best.name, "best cell");
    card(best.best_val_loss ? loss_text(*best.best_val_loss) + " ± " + loss_text(best.val_standard_error)
                            : loss_text(best.train_loss),
         best.best_val_loss ? "its validation loss" : "its train loss");
  }
  html += "</div>\n<h2>Cells</h2>\n<div class=\"wide\"><table class=\"sweep\">\n<tr><th>cell</th>";
  for (const Column& column : kColumns) {
    html += std::string("<th>") + column.heading + "</th>";
  }
  html += "</tr>\n";
  for (std::size_t i = 0; i < results.size(); ++i) {
    const CellResult& r = results[i];
    if (!is_finished(r)) {
      html += "<tr><td>" + escaped(r.name) + fmt::format("</td><td class=\"reason\" colspan=\"{}\">", kColumns.size()) +
              escaped(state_name(r.state) + (r.error.empty() ? "" : ": " + one_line(r.error))) + "</td></tr>\n";
      continue;
    }
    html += fmt::format("<tr{}><td><a href=\"{}/report.html\">{}</a></td>", i == 0 ? " class=\"best\"" : "",
                        escaped(r.name), escaped(r.name));
    for (const Column& column : kColumns) {
      html += "<td>" + escaped(column.text(r)) + "</td>";
    }
    html += "</tr>\n";
  }
  html +=
      "</table></div>\n<p>Sorted by the best validation loss. Its standard error is over the held-back rows, which "
      "are the same in all cells; the best of many cells looks a little better than it is.</p>\n<h2>Loss by "
      "size</h2>\n" +
      loss_chart(results, grid);
  html += "<h2>Options of all cells</h2>\n<table>\n";
  for (const RunConfig::Entry& entry : grid.shared.entries()) {
    html +=
        "<tr><td>" + escaped(entry.name) + "</td><td>" + escaped(RunConfig::value_text(entry.value)) + "</td></tr>\n";
  }
  html += "</table>\n";
  for (const std::string& line : left_out_lines(grid)) {
    html += "<p>" + escaped(line) + "</p>\n";
  }
  return html + "</body></html>\n";
}

OrderedJson sweep_json(const std::vector<CellResult>& results, const SweepGrid& grid) {
  OrderedJson cells = OrderedJson::array();
  for (const CellResult& r : results) {
    OrderedJson cell{{"cell", r.name}, {"state", state_name(r.state)}, {"options", r.varied}};
    if (is_finished(r)) {
      const bool validated = r.best_val_loss.has_value();
      cell["trainable_parameters"] = r.trainable_parameters;
      cell["best_val_loss"] = validated ? OrderedJson(*r.best_val_loss) : OrderedJson();
      cell["val_standard_error"] = validated ? OrderedJson(r.val_standard_error) : OrderedJson();
      cell["best_step"] = validated ? OrderedJson(r.best_step) : OrderedJson();
      cell["steps"] = r.steps;
      cell["train_loss"] = r.train_loss;
      cell["tokens_per_second"] = r.tokens_per_second;
      cell["wall_seconds"] = r.wall_seconds;
      cell["peak_anonymous_bytes"] = r.peak_anonymous_bytes;
    }
    cells.push_back(std::move(cell));
  }
  OrderedJson left_out = OrderedJson::array();
  for (const auto& [name, reason] : grid.left_out) {
    left_out.push_back({{"cell", name}, {"reason", reason}});
  }
  return {{"cells", cells}, {"left_out", left_out}};
}

std::vector<std::string> left_out_lines(const SweepGrid& grid) {
  std::vector<std::pair<std::string, std::vector<std::string>>> by_reason;
  for (const auto& [name, reason] : grid.left_out) {
    auto found = std::find_if(by_reason.begin(), by_reason.end(),
                              [&reason](const auto& known) { return known.first == reason; });
    if (found == by_reason.end()) {
      found = by_reason.insert(by_reason.end(), {reason, {}});
    }
    found->second.push_back(name);
  }
  std::vector<std::string> lines;
  for (const auto& [reason, names] : by_reason) {
    lines.push_back(names.size() == 1
                        ? fmt::format("left out: {}: {}", names[0], reason)
                        : fmt::format("left out: {} and {} more: {}", names[0], names.size() - 1, reason));
  }
  return lines;
}

}  // namespace perft::cli

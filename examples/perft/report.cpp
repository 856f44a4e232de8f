// `report.html` of a run.

#include "report.hpp"

#include <algorithm>  // std::max
#include <map>        // heatmaps by name
#include <sstream>    // lines

#include "perft/io/json.hpp"
#include "svg_chart.hpp"

namespace perft::cli {

namespace {

constexpr const char* kStyle = R"(
:root { color-scheme: light dark; --ink: #1f2937; --soft: #6b7280; --line: #e5e7eb; --paper: #ffffff; --card: #f9fafb; }
@media (prefers-color-scheme: dark) { :root { --ink: #e5e7eb; --soft: #9ca3af; --line: #374151; --paper: #111827; --card: #1f2937; } }
body { font: 14px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto; max-width: 1200px; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0 0 .2rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .6rem; }
.cards { display: flex; flex-wrap: wrap; gap: .7rem; } .cards div { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .5rem .9rem; }
.cards b { display: block; font-size: 1.15rem; font-weight: 600; } .cards span { color: var(--soft); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(480px, 100%), 1fr)); gap: 1rem; }
svg { width: 100%; height: auto; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
svg .title { font-size: 13px; font-weight: 600; fill: var(--ink); } svg .tick { font-size: 11px; fill: var(--soft); } svg .grid { stroke: var(--line); }
table { border-collapse: collapse; } td { padding: .15rem 1rem .15rem 0; vertical-align: top; border-bottom: 1px solid var(--line); } td:first-child { color: var(--soft); white-space: nowrap; }
td:last-child { overflow-wrap: anywhere; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .7rem; overflow-x: auto; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); gap: 0 2rem; }
)";

std::string fact_table(const std::string& heading, const std::vector<std::pair<std::string, std::string>>& rows) {
  std::string html = "<div><h2>" + escaped(heading) + "</h2><table>\n";
  for (const auto& [name, value] : rows) {
    html += "<tr><td>" + escaped(name) + "</td><td>" + escaped(value) + "</td></tr>\n";
  }
  return html + "</table></div>\n";
}

/// The numbers of metrics.jsonl by key, each with its step.
class Curves {
 public:
  explicit Curves(const std::string& metrics) {
    std::istringstream lines(metrics);
    for (std::string text; std::getline(lines, text);) {
      const Json line = Json::parse(text, nullptr, false);
      if (!line.is_object() || !line.contains("step") || !line["step"].is_number()) {
        continue;
      }
      const double step = line["step"].get<double>();
      if (line.contains("router") && line["router"].is_string()) {
        routers_[line["router"].get<std::string>()].push_back(line);
        continue;
      }
      for (const auto& [key, value] : line.items()) {
        if (value.is_number()) {
          by_key_[key].push_back({step, value.get<double>(), 0});
        }
      }
      if (line.contains("alarm") && line["alarm"].is_string()) {
        alarms_.push_back({"step " + short_number(step), line["alarm"].get<std::string>()});
      }
      if (line.contains("val_loss") && line.contains("val_standard_error")) {
        by_key_["val_loss"].back().error = line["val_standard_error"].get<double>();
      }
      if (line.contains("tokens") && line.contains("seconds") && line["seconds"].get<double>() > 0) {
        by_key_["tokens/s"].push_back({step, line["tokens"].get<double>() / line["seconds"].get<double>(), 0});
      }
    }
  }

  std::vector<ChartPoint> of(const std::string& key, double factor = 1) const {
    const auto found = by_key_.find(key);
    std::vector<ChartPoint> points = found == by_key_.end() ? std::vector<ChartPoint>() : found->second;
    for (ChartPoint& point : points) {
      point.y *= factor;
    }
    return points;
  }

  /// The lines of the routers `name` ("base", "adapter"), in order of their steps.
  const std::vector<Json>& router(const std::string& name) const {
    static const std::vector<Json> none;
    const auto found = routers_.find(name);
    return found == routers_.end() ? none : found->second;
  }

  const std::vector<std::pair<std::string, std::string>>& alarms() const { return alarms_; }

 private:
  std::map<std::string, std::vector<ChartPoint>> by_key_;
  std::map<std::string, std::vector<Json>> routers_;
  std::vector<std::pair<std::string, std::string>> alarms_;
};

/// `line[key]` as numbers; empty if it is no array of them.
std::vector<double> numbers(const Json& line, const char* key) {
  std::vector<double> out;
  if (const auto found = line.find(key); found != line.end() && found->is_array()) {
    for (const Json& value : *found) {
      out.push_back(value.is_number() ? value.get<double>() : 0.0);
    }
  }
  return out;
}

/// Three maps of layers over steps, and one of the experts of every layer in the last window.
std::string router_maps(const std::vector<Json>& lines, const std::string& whose) {
  if (lines.empty()) {
    return "";
  }
  std::vector<double> steps;
  std::vector<std::vector<double>> entropy;
  std::vector<std::vector<double>> dead;
  std::vector<std::vector<double>> busiest;
  const auto add = [](std::vector<std::vector<double>>& rows, const std::vector<double>& column) {
    rows.resize(std::max(rows.size(), column.size()));
    for (std::size_t layer = 0; layer < column.size(); ++layer) {
      rows[layer].push_back(column[layer]);
    }
  };
  for (const Json& line : lines) {
    steps.push_back(line["step"].get<double>());
    add(entropy, numbers(line, "entropy"));
    add(dead, numbers(line, "dead"));
    add(busiest, numbers(line, "busiest"));
  }
  const std::size_t layers = entropy.size();
  const std::vector<double> load = numbers(lines.back(), "load");
  const std::size_t experts = layers == 0 ? 0 : load.size() / layers;
  std::vector<double> expert(experts);
  std::vector<std::vector<double>> last(layers);
  for (std::size_t e = 0; e < experts; ++e) {
    expert[e] = static_cast<double>(e);
    for (std::size_t l = 0; l < layers; ++l) {
      last[l].push_back(load[l * experts + e]);
    }
  }
  const auto count = static_cast<double>(experts);
  return "<h2>Routers of the " + whose + "</h2>\n<div class=\"charts\">\n" +
         heatmap("Entropy of the load (1: even, 0: one expert)", "step", "layer", steps, entropy, 0, 1) +
         heatmap("Dead experts: chosen by no token", "step", "layer", steps, dead, 0, std::max(1.0, count)) +
         heatmap("Busiest expert's load, mean 1", "step", "layer", steps, busiest, 1, std::max(2.0, count / 4)) +
         heatmap("Load of each expert in the last window, mean 1", "expert", "layer", expert, last, 0, 2) + "</div>\n";
}

}  // namespace

const char* report_style() {
  return kStyle;
}

std::string run_report(const ReportFacts& facts, const std::string& metrics) {
  const Curves curves(metrics);
  std::string html =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width, initial-scale=1\"><title>perft: " +
      escaped(facts.title) + "</title><style>" + kStyle + "</style></head><body>\n<h1>" + escaped(facts.title) +
      "</h1>\n<div class=\"cards\">\n";
  for (const auto& [name, value] : facts.summary) {
    html += "<div><b>" + escaped(value) + "</b><span>" + escaped(name) + "</span></div>\n";
  }
  html += "</div>\n";
  if (!curves.alarms().empty()) {
    html += fact_table("Alarms", curves.alarms());
  }
  html += "<h2>Training</h2>\n<div class=\"charts\">\n";
  html += line_chart(
      "Loss", "step", "nats per token",
      {{"train", curves.of("train_loss"), false}, {"validation ± standard error", curves.of("val_loss"), true}});
  html += line_chart(
      "Auxiliary loss, before its coefficient", "step", "",
      {{"base routers", curves.of("aux_loss"), false}, {"adapter routers", curves.of("adapter_aux_loss"), false}});
  html += line_chart("Learning rate", "step", "", {{"", curves.of("lr"), false}});
  html += line_chart("Gradient norm before clipping", "step", "", {{"", curves.of("grad_norm"), false}});
  html += line_chart("Speed", "step", "tokens per second", {{"", curves.of("tokens/s"), false}});
  html += line_chart("Anonymous memory", "step", "GB", {{"", curves.of("anonymous_bytes", 1e-9), false}});
  html += "</div>\n" + router_maps(curves.router("adapter"), "adapter") + router_maps(curves.router("base"), "base");
  for (const auto& [heading, text] : facts.tables) {
    html += "<h2>" + escaped(heading) + "</h2>\n<pre>" + escaped(text) + "</pre>\n";
  }
  html += "<div class=\"columns\">\n" + fact_table("Configuration", facts.configuration) +
          fact_table("Environment", facts.environment) + "</div>\n</body></html>\n";
  return html;
}

}  // namespace perft::cli

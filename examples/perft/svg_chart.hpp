#pragma once
// Line charts and heatmaps as SVG text: what the report of a run is drawn with.

#include <cstddef>  // std::size_t
#include <string>   // SVG
#include <vector>   // points

namespace perft::cli {

struct ChartPoint {
  double x = 0;
  double y = 0;
  double error = 0;  // half the length of an error bar; 0: none
};

struct ChartLine {
  std::string name;  // legend; empty: none
  std::vector<ChartPoint> points;
  bool markers = false;  // dots, and bars where a point has an error
};

/// Text as HTML and SVG show it.
std::string escaped(const std::string& text);

/// A number as an axis or a table shows it: up to 4 significant digits, thousands as k, M, G.
std::string short_number(double value);

/// Lines over a common x axis. Points of a line that is longer than the chart is wide are averaged in groups; their
/// range is shown as a band behind the line. Without a single point: a chart that says so.
std::string line_chart(const std::string& title, const std::string& x_label, const std::string& unit,
                       const std::vector<ChartLine>& lines);

/// The colour of the line at `index` of a line_chart.
const char* line_colour(std::size_t index);

/// values[row][column] as coloured cells, one colour scale from `low` to `high`; row 0 is at the top.
std::string heatmap(const std::string& title, const std::string& x_label, const std::string& y_label,
                    const std::vector<double>& columns, const std::vector<std::vector<double>>& values, double low,
                    double high);

}  // namespace perft::cli

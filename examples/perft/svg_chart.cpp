// Line charts and heatmaps as SVG text.

#include "svg_chart.hpp"

#include <fmt/format.h>

#include <algorithm>  // std::min, std::max
#include <array>      // colours
#include <cmath>      // ticks
#include <limits>     // extents

namespace perft::cli {

namespace {

constexpr double kWidth = 560, kHeight = 260, kLeft = 58, kRight = 14, kTop = 34, kBottom = 38;
constexpr std::array<const char*, 4> kColours{"#2563eb", "#d97706", "#059669", "#9333ea"};

struct Extent {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  void add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }

  bool empty() const { return low > high; }
};

/// Round numbers (1, 2 or 5 times a power of ten apart), about `count` of them, that span the extent.
std::vector<double> ticks(const Extent& extent, int count) {
  // A curve that is flat but for rounding: a step that the numbers' last digits cannot count would count forever.
  const double largest = std::max(std::abs(extent.low), std::abs(extent.high));
  const double span = std::max({extent.high - extent.low, 1e-12 * largest, 1e-300});
  const double power = std::pow(10.0, std::floor(std::log10(span / count)));
  double step = power;
  for (const double factor : {2.0, 5.0, 10.0}) {
    if (span / step > count) {
      step = factor * power;
    }
  }
  std::vector<double> at;
  for (double i = std::ceil(extent.low / step - 1e-9); i * step <= extent.high + 1e-9 * step; ++i) {
    at.push_back(i * step + 0.0);  // no -0
  }
  return at;
}

/// Maps data to the plot area.
struct Scale {
  Extent x, y;

  double px(double value) const {
    return kLeft + (value - x.low) / std::max(x.high - x.low, 1e-300) * (kWidth - kLeft - kRight);
  }

  double py(double value) const {
    return kHeight - kBottom - (value - y.low) / std::max(y.high - y.low, 1e-300) * (kHeight - kTop - kBottom);
  }
};

std::string opening(const std::string& title) {
  return fmt::format(
      "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\"><text class=\"title\" x=\"{}\" y=\"18\">{}</text>\n",
      kWidth, kHeight, escaped(title), kLeft, escaped(title));
}

std::string x_axis(const Scale& scale, const std::string& label) {
  std::string svg;
  for (const double at : ticks(scale.x, 6)) {
    svg += fmt::format("<text class=\"tick\" text-anchor=\"middle\" x=\"{:.1f}\" y=\"{}\">{}</text>", scale.px(at),
                       kHeight - kBottom + 15, short_number(at));
  }
  return svg + fmt::format("<text class=\"tick\" text-anchor=\"end\" x=\"{}\" y=\"{}\">{}</text>\n", kWidth - kRight,
                           kHeight - 6, escaped(label));
}

/// Points in groups such that at most `most` are drawn: the mean of each group, and its lowest and highest value.
struct Group {
  double x = 0, mean = 0, low = 0, high = 0, error = 0;
};

std::vector<Group> grouped(const std::vector<ChartPoint>& points, std::size_t most) {
  const std::size_t size = std::max<std::size_t>(1, (points.size() + most - 1) / most);
  std::vector<Group> groups;
  for (std::size_t begin = 0; begin < points.size(); begin += size) {
    const std::size_t end = std::min(points.size(), begin + size);
    Extent extent;
    Group group;
    for (std::size_t i = begin; i < end; ++i) {
      extent.add(points[i].y);
      group.x += points[i].x / static_cast<double>(end - begin);
      group.mean += points[i].y / static_cast<double>(end - begin);
    }
    group.low = extent.low;
    group.high = extent.high;
    group.error = end - begin == 1 ? points[begin].error : 0;
    groups.push_back(group);
  }
  return groups;
}

std::string drawn(const ChartLine& line, const Scale& scale, const char* colour) {
  const std::vector<Group> groups = grouped(line.points, 250);
  std::string path, upper, lower, marks;
  bool band = false;
  for (const Group& g : groups) {
    path += fmt::format("{:.1f},{:.1f} ", scale.px(g.x), scale.py(g.mean));
    upper += fmt::format("{:.1f},{:.1f} ", scale.px(g.x), scale.py(g.high));
    lower = fmt::format("{:.1f},{:.1f} ", scale.px(g.x), scale.py(g.low)) + lower;
    band = band || g.high > g.low;
    if (line.markers) {
      if (g.error > 0) {
        marks += fmt::format("<line x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.1f}\" y2=\"{2:.1f}\" stroke=\"{3}\"/>",
                             scale.px(g.x), scale.py(g.mean - g.error), scale.py(g.mean + g.error), colour);
      }
      marks += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.5\" fill=\"{}\"/>", scale.px(g.x),
                           scale.py(g.mean), colour);
    }
  }
  std::string svg;
  if (band) {
    svg += fmt::format("<polygon points=\"{}{}\" fill=\"{}\" opacity=\"0.18\"/>", upper, lower, colour);
  }
  return svg + fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\"/>", path, colour) +
         marks + "\n";
}

/// Dark blue over green to yellow, as t goes from 0 to 1 (viridis at five points).
std::string colour_of(double t) {
  constexpr std::array<std::array<double, 3>, 5> stops{
      {{68, 1, 84}, {59, 82, 139}, {33, 145, 140}, {94, 201, 98}, {253, 231, 37}}};
  const double at = std::clamp(t, 0.0, 1.0) * 4;
  const auto i = std::min<std::size_t>(3, static_cast<std::size_t>(at));
  const double f = at - static_cast<double>(i);
  const auto channel = [&](std::size_t c) { return static_cast<int>(stops[i][c] * (1 - f) + stops[i + 1][c] * f); };
  return fmt::format("#{:02x}{:02x}{:02x}", channel(0), channel(1), channel(2));
}

}  // namespace

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string short_number(double value) {
  const double size = std::abs(value);
  if (size >= 1e9) {
    return fmt::format("{:.4g}G", value / 1e9);
  }
  if (size >= 1e6) {
    return fmt::format("{:.4g}M", value / 1e6);
  }
  if (size >= 1e4) {
    return fmt::format("{:.4g}k", value / 1e3);
  }
  return fmt::format("{:.4g}", value);
}

const char* line_colour(std::size_t index) {
  return kColours[index % kColours.size()];
}

std::string line_chart(const std::string& title, const std::string& x_label, const std::string& unit,
                       const std::vector<ChartLine>& lines) {
  Scale scale;
  for (const ChartLine& line : lines) {
    for (const ChartPoint& point : line.points) {
      scale.x.add(point.x);
      scale.y.add(point.y - point.error);
      scale.y.add(point.y + point.error);
    }
  }
  std::string svg = opening(unit.empty() ? title : title + ", " + unit);
  if (scale.x.empty()) {
    return svg +
           fmt::format("<text class=\"tick\" x=\"{}\" y=\"{}\">nothing to show yet</text></svg>\n", kLeft, kHeight / 2);
  }
  const double margin =
      scale.y.high > scale.y.low ? 0.04 * (scale.y.high - scale.y.low) : std::max(std::abs(scale.y.high) * 0.05, 1e-12);
  scale.y.low -= margin;
  scale.y.high += margin;
  if (scale.x.high == scale.x.low) {
    scale.x.low -= 1;
    scale.x.high += 1;
  }
  for (const double at : ticks(scale.y, 5)) {
    svg += fmt::format(
        "<line class=\"grid\" x1=\"{0}\" x2=\"{1}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\"/><text class=\"tick\" "
        "text-anchor=\"end\" x=\"{3}\" y=\"{4:.1f}\">{5}</text>",
        kLeft, kWidth - kRight, scale.py(at), kLeft - 6, scale.py(at) + 4, short_number(at));
  }
  svg += x_axis(scale, x_label);
  double legend = kWidth - kRight;
  for (std::size_t i = lines.size(); i-- > 0;) {
    if (!lines[i].name.empty() && !lines[i].points.empty()) {
      svg += fmt::format("<text class=\"tick\" text-anchor=\"end\" style=\"fill:{}\" x=\"{:.1f}\" y=\"18\">{}</text>",
                         kColours[i % kColours.size()], legend, escaped(lines[i].name));
      legend -= 7.0 * static_cast<double>(lines[i].name.size()) + 14;
    }
  }
  for (std::size_t i = 0; i < lines.size(); ++i) {
    svg += drawn(lines[i], scale, kColours[i % kColours.size()]);
  }
  return svg + "</svg>\n";
}

std::string heatmap(const std::string& title, const std::string& x_label, const std::string& y_label,
                    const std::vector<double>& columns, const std::vector<std::vector<double>>& values, double low,
                    double high) {
  std::string svg = opening(title);
  if (columns.empty() || values.empty()) {
    return svg +
           fmt::format("<text class=\"tick\" x=\"{}\" y=\"{}\">nothing to show yet</text></svg>\n", kLeft, kHeight / 2);
  }
  const double width = (kWidth - kLeft - kRight - 60) / static_cast<double>(columns.size());
  const double height = (kHeight - kTop - kBottom) / static_cast<double>(values.size());
  const double span = std::max(high - low, 1e-300);
  for (std::size_t r = 0; r < values.size(); ++r) {
    for (std::size_t c = 0; c < std::min(values[r].size(), columns.size()); ++c) {
      svg += fmt::format("<rect x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\" fill=\"{}\"/>",
                         kLeft + static_cast<double>(c) * width, kTop + static_cast<double>(r) * height, width + 0.3,
                         height + 0.3, colour_of((values[r][c] - low) / span));
    }
  }
  svg += "\n";
  const std::size_t row_step = std::max<std::size_t>(1, values.size() / 8);
  for (std::size_t r = 0; r < values.size(); r += row_step) {
    svg += fmt::format("<text class=\"tick\" text-anchor=\"end\" x=\"{}\" y=\"{:.1f}\">{}</text>", kLeft - 6,
                       kTop + (static_cast<double>(r) + 0.5) * height + 4, r);
  }
  const std::size_t column_step = std::max<std::size_t>(1, columns.size() / 6);
  for (std::size_t c = 0; c < columns.size(); c += column_step) {
    svg +=
        fmt::format("<text class=\"tick\" text-anchor=\"middle\" x=\"{:.1f}\" y=\"{}\">{}</text>",
                    kLeft + (static_cast<double>(c) + 0.5) * width, kHeight - kBottom + 15, short_number(columns[c]));
  }
  svg += fmt::format(
      "<text class=\"tick\" text-anchor=\"end\" x=\"{}\" y=\"{}\">{}</text><text class=\"tick\" x=\"4\" "
      "y=\"{}\">{}</text>",
      kWidth - kRight - 60, kHeight - 6, escaped(x_label), kTop - 4, escaped(y_label));
  constexpr int kSteps = 24;
  const double bar = (kHeight - kTop - kBottom) / kSteps;
  for (int i = 0; i < kSteps; ++i) {
    svg += fmt::format("<rect x=\"{}\" y=\"{:.2f}\" width=\"12\" height=\"{:.2f}\" fill=\"{}\"/>", kWidth - kRight - 48,
                       kHeight - kBottom - (i + 1) * bar, bar + 0.3, colour_of((i + 0.5) / kSteps));
  }
  return svg + fmt::format(
                   "<text class=\"tick\" x=\"{0}\" y=\"{1}\">{2}</text><text class=\"tick\" x=\"{0}\" "
                   "y=\"{3}\">{4}</text></svg>\n",
                   kWidth - kRight - 32, kHeight - kBottom, short_number(low), kTop + 8, short_number(high));
}

}  // namespace perft::cli

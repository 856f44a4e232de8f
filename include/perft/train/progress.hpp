#pragma once
// The progress line of a run on a terminal: bar, steps, time left, tokens/s, loss, memory. It is fitted to the
// terminal's width by leaving out what matters least, and nothing is written where stderr is not a terminal.

#include <sys/ioctl.h>  // terminal width
#include <unistd.h>     // isatty

#include <algorithm>  // std::clamp
#include <chrono>     // rate limit, elapsed time
#include <cmath>      // std::isfinite
#include <cstdint>    // std::int64_t
#include <cstdio>     // stderr
#include <optional>   // what is not known yet
#include <string>     // the line

#include "perft/core/config.hpp"

namespace perft::inline PERFT_ABI {

/// What the line shows.
struct Progress {
  std::int64_t step = 0;   // optimizer steps done
  std::int64_t steps = 0;  // of
  double elapsed_seconds = 0;
  std::optional<double> seconds_left;  // nothing before the first step is done
  double tokens_per_second = 0;
  std::optional<double> loss;
  std::int64_t memory_bytes = 0;  // 0: not shown
};

/// "0:07", "12:34", "1:02:03", "3d 04h".
inline std::string duration_text(double seconds) {
  const auto total = static_cast<std::int64_t>(std::clamp(seconds, 0.0, 1e12) + 0.5);
  const auto two = [](std::int64_t value) { return (value < 10 ? "0" : "") + std::to_string(value); };
  if (total >= 86400) {
    return std::to_string(total / 86400) + "d " + two(total % 86400 / 3600) + "h";
  }
  const std::string minutes_seconds = two(total % 60);
  return total >= 3600 ? std::to_string(total / 3600) + ":" + two(total % 3600 / 60) + ":" + minutes_seconds
                       : std::to_string(total / 60) + ":" + minutes_seconds;
}

/// Decimal number with a few significant digits and a suffix: "812", "1.53k", "24.1k", "1.20M".
inline std::string short_number(double value) {
  const char* suffix = "";
  for (const char* next : {"k", "M", "G"}) {
    if (value < 999.5) {
      break;
    }
    value /= 1000;
    suffix = next;
  }
  const int digits = *suffix == '\0' || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  char text[32];
  std::snprintf(text, sizeof text, "%.*f%s", digits, value, suffix);
  return text;
}

/// The line for a terminal of `columns` columns, at most columns - 1 characters (the last column would wrap on some
/// terminals). "step/steps" always stands; loss, time left, tokens/s, the bar and memory follow in this order of
/// importance while they fit. The bar takes the columns that are left, 5 to 24.
inline std::string progress_line(const Progress& p, int columns) {
  const auto width = static_cast<std::size_t>(std::max(columns - 1, 1));
  const double share =
      p.steps > 0 ? std::clamp(static_cast<double>(p.step) / static_cast<double>(p.steps), 0.0, 1.0) : 0;
  const std::string count = std::to_string(p.step) + "/" + std::to_string(p.steps);
  char number[48];
  std::string loss;
  if (p.loss) {
    std::snprintf(number, sizeof number, *p.loss < 1e4 ? "  loss %.4f" : "  loss %.3g", *p.loss);
    loss = number;
  }
  const std::string time =
      p.seconds_left ? "  " + duration_text(*p.seconds_left) + " left" : "  " + duration_text(p.elapsed_seconds);
  const std::string rate = "  " + short_number(p.tokens_per_second) + " tok/s";
  std::string memory;
  if (p.memory_bytes > 0) {
    std::snprintf(number, sizeof number, "  %.2f GB", static_cast<double>(p.memory_bytes) / 1e9);
    memory = number;
  }

  std::snprintf(number, sizeof number, "%3d%% ", static_cast<int>(share * 100));
  const std::string percent = number;
  std::string line = count;
  const auto append_if_it_fits = [&](const std::string& part) {
    if (line.size() + part.size() <= width) {
      line += part;
    }
  };
  append_if_it_fits(loss);
  append_if_it_fits(time);
  append_if_it_fits(rate);
  constexpr std::size_t least = 5;
  const std::size_t frame = percent.size() + 3;  // "[", "]", " "
  const bool bar = line.size() + frame + least <= width;
  if (!bar || line.size() + frame + least + memory.size() <= width) {
    append_if_it_fits(memory);
  }
  if (bar) {
    const std::size_t cells = std::clamp<std::size_t>(width - line.size() - frame, least, 24);
    const auto full = static_cast<std::size_t>(share * static_cast<double>(cells));
    line = percent + "[" + std::string(full, '#') + std::string(cells - full, '.') + "] " + line;
  }
  return line.substr(0, width);
}

/// Draws the line on stderr, at most ten times a second, if stderr is a terminal; else does nothing at all.
class ProgressBar {
 public:
  ProgressBar() : terminal_(::isatty(STDERR_FILENO) == 1) {}

  ~ProgressBar() { clear(); }

  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  bool visible() const { return terminal_; }

  /// `force` draws even if the last line is younger than a tenth of a second.
  void draw(const Progress& progress, bool force = false) {
    const auto now = std::chrono::steady_clock::now();
    if (!terminal_ || (!force && drawn_ && now - last_ < std::chrono::milliseconds(100))) {
      return;
    }
    last_ = now;
    drawn_ = true;
    const std::string line = "\r" + progress_line(progress, width()) + "\x1b[K";
    std::fwrite(line.data(), 1, line.size(), stderr);
    std::fflush(stderr);
  }

  /// Wipes the line, so that other output can start in column 0.
  void clear() {
    if (drawn_) {
      std::fputs("\r\x1b[K", stderr);
      std::fflush(stderr);
      drawn_ = false;
    }
  }

 private:
  static int width() {
    struct winsize size {};

    return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
  }

  bool terminal_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point last_;
};

}  // namespace perft::inline PERFT_ABI

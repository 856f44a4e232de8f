// The progress line at usual and narrow widths.

#include "perft/train/progress.hpp"

#include <catch2/catch.hpp>
#include <string>

using perft::Progress;

namespace {

const Progress kHalf{120, 240, 100, 3723, 1534, 1.23456, 1'230'000'000};

}  // namespace

TEST_CASE("progress_line shows everything on 80 columns", "[train][progress]") {
  const std::string line = perft::progress_line(kHalf, 80);
  CHECK(line == " 50% [#######........] 120/240  loss 1.2346  1:02:03 left  1.53k tok/s  1.23 GB");
  CHECK(line.size() <= 79);
}

TEST_CASE("progress_line leaves out what matters least on narrow terminals", "[train][progress]") {
  CHECK(perft::progress_line(kHalf, 70) == " 50% [##...] 120/240  loss 1.2346  1:02:03 left  1.53k tok/s  1.23 GB");
  CHECK(perft::progress_line(kHalf, 69) == " 50% [######.......] 120/240  loss 1.2346  1:02:03 left  1.53k tok/s");
  CHECK(perft::progress_line(kHalf, 58) == "120/240  loss 1.2346  1:02:03 left  1.53k tok/s  1.23 GB");
  CHECK(perft::progress_line(kHalf, 40) == "120/240  loss 1.2346  1:02:03 left");
  CHECK(perft::progress_line(kHalf, 22) == "120/240  loss 1.2346");
  CHECK(perft::progress_line(kHalf, 10) == "120/240");
  CHECK(perft::progress_line(kHalf, 4) == "120");
}

TEST_CASE("progress_line never reaches the last column, whatever the numbers", "[train][progress]") {
  for (const double loss : {0.0, 9.99996, 12345.678, 1e300}) {
    for (const std::int64_t steps : {std::int64_t{0}, std::int64_t{1}, std::int64_t{123456789}}) {
      const Progress progress{steps, steps, 1e9, 1e9, 9.9e12, loss, std::int64_t{1} << 50};
      for (int columns = 0; columns < 200; ++columns) {
        const std::string line = perft::progress_line(progress, columns);
        CHECK(line.size() <= static_cast<std::size_t>(std::max(columns - 1, 1)));
      }
    }
  }
}

TEST_CASE("progress_line: the ends of a run", "[train][progress]") {
  const Progress start{0, 10, 4, {}, 0, {}, 0};
  CHECK(perft::progress_line(start, 60) == "  0% [........................] 0/10  0:04  0 tok/s");
  const Progress end{10, 10, 40, 0.0, 100, 0.5, 0};
  CHECK(perft::progress_line(end, 60) == "100% [###########] 10/10  loss 0.5000  0:00 left  100 tok/s");
}

TEST_CASE("durations and short numbers", "[train][progress]") {
  CHECK(perft::duration_text(7) == "0:07");
  CHECK(perft::duration_text(59.6) == "1:00");
  CHECK(perft::duration_text(754) == "12:34");
  CHECK(perft::duration_text(3723) == "1:02:03");
  CHECK(perft::duration_text(3 * 86400 + 4 * 3600) == "3d 04h");
  CHECK(perft::short_number(0) == "0");
  CHECK(perft::short_number(812) == "812");
  CHECK(perft::short_number(999.6) == "1.00k");
  CHECK(perft::short_number(1534) == "1.53k");
  CHECK(perft::short_number(24100) == "24.1k");
  CHECK(perft::short_number(124100) == "124k");
  CHECK(perft::short_number(1.2e6) == "1.20M");
}

TEST_CASE("a bar is silent where stderr is not a terminal", "[train][progress]") {
  perft::ProgressBar bar;
  CHECK(bar.visible() == (::isatty(STDERR_FILENO) == 1));
}

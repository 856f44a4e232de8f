// metrics.jsonl: lines keep order and digits, are on disk at once, and never hold a number that is not finite.

#include "perft/train/metrics.hpp"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <string>

namespace {

std::string temporary(const char* name) {
  return "/tmp/perft_" + std::to_string(::getpid()) + "_" + name;
}

}  // namespace

TEST_CASE("metrics_line keeps the fields' order and all digits", "[train][metrics]") {
  CHECK(perft::metrics_line({{"step", std::int64_t{3}}, {"loss", 0.1}, {"lr", 1e-5}, {"kind", "train"}}) ==
        R"({"step":3,"loss":0.1,"lr":1e-05,"kind":"train"})");
  CHECK(perft::metrics_line({{"entropy", std::vector<double>{1.0, 0.25}}, {"none", std::vector<double>{}}}) ==
        R"({"entropy":[1.0,0.25],"none":[]})");
  const double third = 1.0 / 3;
  const std::string line = perft::metrics_line({{"x", third}});
  CHECK(perft::parse_json(line, "line")["x"].get<double>() == third);
}

TEST_CASE("metrics_line refuses what is not finite and names it", "[train][metrics]") {
  CHECK_THROWS_AS(perft::metrics_line({{"loss", std::numeric_limits<double>::quiet_NaN()}}), perft::NonFiniteError);
  CHECK_THROWS_WITH(perft::metrics_line({{"ok", 1.0}, {"grad_norm", std::numeric_limits<double>::infinity()}}),
                    "metrics: grad_norm is inf; the run cannot go on, lower the learning rate or look at the data");
  CHECK_THROWS_WITH(perft::metrics_line({{"load", std::vector<double>{1.0, std::numeric_limits<double>::infinity()}}}),
                    "metrics: load is inf; the run cannot go on, lower the learning rate or look at the data");
}

TEST_CASE("MetricsWriter appends, or starts anew, and every line is on disk at once", "[train][metrics]") {
  const std::string path = temporary("metrics.jsonl");
  {
    perft::MetricsWriter writer(path, true);
    writer.write({{"step", std::int64_t{1}}});
    CHECK(perft::read_text_file(path) == "{\"step\":1}\n");
    CHECK_THROWS_AS(writer.write({{"loss", std::numeric_limits<double>::quiet_NaN()}}), perft::NonFiniteError);
    CHECK(perft::read_text_file(path) == "{\"step\":1}\n");
  }
  perft::MetricsWriter(path, false).write({{"step", std::int64_t{2}}});
  CHECK(perft::read_text_file(path) == "{\"step\":1}\n{\"step\":2}\n");
  perft::MetricsWriter(path, true).write({{"step", std::int64_t{3}}});
  CHECK(perft::read_text_file(path) == "{\"step\":3}\n");
  std::remove(path.c_str());
  CHECK_THROWS_WITH(perft::MetricsWriter("/nonexistent/metrics.jsonl", true),
                    "/nonexistent/metrics.jsonl: cannot open the file for writing: No such file or directory; check "
                    "the folder and its permissions");
  if (std::filesystem::exists("/dev/full")) {
    CHECK_THROWS_WITH(perft::MetricsWriter("/dev/full", false).write({{"step", std::int64_t{1}}}),
                      "/dev/full: cannot write to the file: No space left on device; free space or raise the limit");
  }
}

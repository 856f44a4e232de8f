// The TOML text of a run's settings.

#include "perft/train/run_config.hpp"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

TEST_CASE("RunConfig writes one setting a line, in order", "[train][run_config]") {
  perft::RunConfig config;
  config.add("model", std::string("a \"b\"\\\n\x7f\xC3\xA9"));
  config.add("resume", false);
  config.add("seed", std::int64_t{42});
  config.add("lr", 1e-5);
  config.add("alpha", 16.0);
  config.add("data", std::vector<std::string>{"a.json", "b.json"});
  config.add("none", std::vector<std::string>{});
  CHECK(config.to_toml() ==
        "model = \"a \\\"b\\\"\\\\\\u000A\\u007F\xC3\xA9\"\n"
        "resume = false\nseed = 42\nlr = 1e-05\nalpha = 16.0\ndata = [\"a.json\", \"b.json\"]\nnone = []\n");
  REQUIRE(config.find("seed") != nullptr);
  CHECK(std::get<std::int64_t>(*config.find("seed")) == 42);
  CHECK(config.find("sed") == nullptr);
}

TEST_CASE("real_text reads back to the same double and never looks like an integer", "[train][run_config]") {
  for (const double value : {0.0, 1.0, -3.0, 0.1, 1e-5, 1.0 / 3, 1e22, 5e-324, 1.7976931348623157e308}) {
    const std::string text = perft::real_text(value);
    CHECK(std::strtod(text.c_str(), nullptr) == value);
    CHECK(text.find_first_of(".e") != std::string::npos);
  }
  CHECK_THROWS_WITH(perft::real_text(std::numeric_limits<double>::quiet_NaN()), "cannot write nan as a number");
}

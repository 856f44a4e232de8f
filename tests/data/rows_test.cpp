// Rows from JSON arrays and JSON Lines, and what a broken row's error says.

#include "perft/data/rows.hpp"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

using perft::Row;

namespace {

/// The error's text, or "no error".
std::string message(const std::string& text) {
  try {
    perft::parse_rows(text, "rows.json");
  } catch (const perft::IoError& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("parse_rows reads a JSON array", "[data][rows]") {
  const std::vector<Row> rows = perft::parse_rows(
      R"( [{"instruction": "a", "input": "b", "output": "c", "answer": [true], "id": 7},
           {"output": "", "instruction": "\u00e9\n", "answer": 4.5}, {"instruction": "x", "output": "y"}])",
      "rows.json");
  REQUIRE(rows.size() == 3);
  CHECK(rows[0].instruction == "a");
  CHECK(rows[0].input == "b");
  CHECK(rows[0].output == "c");
  CHECK(rows[1].instruction == "\xC3\xA9\n");
  CHECK(rows[1].input.empty());
  CHECK(rows[2].where == "rows.json: row 3");
}

TEST_CASE("parse_rows reads JSON Lines, with blank lines, CRLF and a byte order mark", "[data][rows]") {
  const std::vector<Row> rows = perft::parse_rows(
      "\xEF\xBB\xBF{\"instruction\": \"a\", \"output\": \"b\"}\r\n\n   \n{\"instruction\": \"c\", \"output\": \"d\"}",
      "rows.jsonl");
  REQUIRE(rows.size() == 2);
  CHECK(rows[0].output == "b");
  CHECK(rows[1].instruction == "c");
  CHECK(perft::parse_rows("\xEF\xBB\xBF[{\"instruction\": \"a\", \"output\": \"b\"}]", "rows.json").size() == 1);
}

TEST_CASE("read_rows joins files in order and names the one that is missing", "[data][rows]") {
  const std::string base = "/tmp/perft_rows_test_" + std::to_string(::getpid());
  const std::vector<std::string> paths = {base + ".json", base + ".jsonl"};
  std::ofstream(paths[0]) << R"([{"instruction": "1", "output": "b"}])";
  std::ofstream(paths[1]) << R"({"instruction": "2", "output": "b"})"
                          << "\n";
  const std::vector<Row> rows = perft::read_rows(paths);
  for (const std::string& path : paths) {
    std::remove(path.c_str());
  }
  REQUIRE(rows.size() == 2);
  CHECK(rows[0].instruction == "1");
  CHECK(rows[1].instruction == "2");
  CHECK(rows[1].where == paths[1] + ": line 1");
  CHECK_THROWS_WITH(perft::read_rows(paths), Catch::StartsWith(paths[0] + ": cannot open the file: "));
}

TEST_CASE("parse_rows: errors name file, row and key", "[data][rows]") {
  CHECK(message(R"([{"instruction": "a", "output": "b"}, {"instruction": "a"}])") ==
        R"(rows.json: row 2: no key "output"; a row needs "instruction" and "output")");
  CHECK(message(R"([{"output": "b"}])") ==
        R"(rows.json: row 1: no key "instruction"; a row needs "instruction" and "output")");
  CHECK(message(R"([{"instruction": 3, "output": "b"}])") ==
        R"(rows.json: row 1: "instruction" is number, expected a string)");
  CHECK(message(R"([{"instruction": "a", "output": null}])") ==
        R"(rows.json: row 1: "output" is null, expected a string)");
  CHECK(message(R"([{"instruction": "a", "output": "b", "input": ["c"]}])") ==
        R"(rows.json: row 1: "input" is array, expected a string)");
  CHECK(message(R"(["a"])") == R"(rows.json: row 1: is string, expected an object with "instruction" and "output")");
  CHECK(message("{\"instruction\": \"a\", \"output\": \"b\"}\n\n{\"instruction\": \"a\"}\n") ==
        R"(rows.json: line 3: no key "output"; a row needs "instruction" and "output")");
  CHECK(message("{\"instruction\": \"a\", \"output\": \"b\"}\n{oops}\n") ==
        "rows.json: line 2: not valid JSON at byte 2; fix or replace the file");
  CHECK(message(R"([{"instruction": "a", "output": "b"})") ==
        "rows.json: not valid JSON at byte 37; fix or replace the file");
}

TEST_CASE("parse_rows: no rows is an error", "[data][rows]") {
  CHECK(message("") == "rows.json: is empty; expected a JSON array of rows or one row a line");
  CHECK(message(" \n") == "rows.json: is empty; expected a JSON array of rows or one row a line");
  CHECK(message("[]") == R"(rows.json: has no rows; expected at least one with "instruction" and "output")");
  CHECK(message("3") == "rows.json: starts with neither [ nor {; expected a JSON array of rows or one row a line");
}

#include "perft/io/json.hpp"

#include <catch2/catch.hpp>  // test cases
#include <string>            // texts

using perft::in_quotes;
using perft::IoError;
using perft::Json;
using perft::parse_json;
using perft::parse_json_strict;

TEST_CASE("text from files stays on one line in messages") {
  CHECK(in_quotes("model.norm.weight") == "\"model.norm.weight\"");
  CHECK(in_quotes("a\nb\t\x7f\"\\") == "\"a\\nb\\x09\\x7f\\\"\\\\\"");
  CHECK(in_quotes("Größe") == "\"Größe\"");
  CHECK(in_quotes(std::string(160, 'x')) == "\"" + std::string(160, 'x') + "\"");
  CHECK(in_quotes(std::string(161, 'x')) == "\"" + std::string(160, 'x') + "…\"");
}

TEST_CASE("both parsers accept exactly one JSON value") {
  for (const auto& parse : {+[](const std::string& text) { return parse_json(text, "f.json"); },
                            +[](const std::string& text) { return parse_json_strict(text, "f.json"); }}) {
    CHECK(parse(R"({"a": [1, 2.5, null, true, "x"], "b": {}})") ==
          Json{{"a", {1, 2.5, nullptr, true, "x"}}, {"b", Json::object()}});
    CHECK(parse("7") == Json(7));
    CHECK_THROWS_WITH(parse(""), "f.json: not valid JSON at byte 1; fix or replace the file");
    CHECK_THROWS_WITH(parse("{} {}"), "f.json: not valid JSON at byte 4; fix or replace the file");
    CHECK_THROWS_WITH(parse("{\"a\": 1"), "f.json: not valid JSON at byte 8; fix or replace the file");
    CHECK_THROWS_WITH(parse("\"\xff\""), "f.json: not valid JSON at byte 2; fix or replace the file");
    CHECK_THROWS_WITH(parse("[1e999]"),
                      "f.json: JSON holds a number outside the range of a double; fix or replace the file");
    CHECK_THROWS_AS(parse("[1e999]"), IoError);
  }
}

TEST_CASE("the strict parser refuses duplicate keys and deep nesting") {
  CHECK(parse_json(R"({"a": 1, "a": 2})", "f")["a"] == 2);
  CHECK_THROWS_WITH(parse_json_strict(R"({"a": 1, "b": 2, "a": 3})", "f.json"),
                    "f.json: key \"a\" appears twice in one object, expected once; fix or replace the file");
  CHECK_THROWS_WITH(parse_json_strict(R"([{"x": {"k\n": 1, "k\n": 3}}])", "f.json"),
                    "f.json: key \"k\\n\" appears twice in one object, expected once; fix or replace the file");
  // The same key in two objects, or after an inner object has closed, is no duplicate.
  CHECK_NOTHROW(parse_json_strict(R"({"a": {"a": 1, "b": {"a": 2}}, "b": {"a": 1}, "c": [{"a": 1}, {"a": 1}]})", "f"));
  CHECK_NOTHROW(parse_json_strict(R"({"x": {"b": 1}, "b": 2})", "f"));
  CHECK_THROWS_AS(parse_json_strict(R"({"a": 1, "x": {"b": 1}, "a": 2})", "f"), IoError);
  CHECK_NOTHROW(parse_json_strict("[[[1]]]", "f", 3));
  CHECK_THROWS_WITH(parse_json_strict("[[[[1]]]]", "f", 3),
                    "f: JSON nests deeper than 3 levels; the file is corrupt or not what its name says");
  CHECK_THROWS_AS(parse_json_strict(std::string(1'000'000, '['), "f"), IoError);
}

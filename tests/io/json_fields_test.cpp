#include "perft/io/json_fields.hpp"

#include <catch2/catch.hpp>  // test cases
#include <cstdint>           // std::int64_t
#include <functional>        // table of failing calls
#include <string>            // texts
#include <vector>            // lists

using perft::IoError;
using perft::Json;
using perft::JsonFields;

TEST_CASE("fields are read with their types; null reads as absent") {
  const Json json = Json::parse(
      R"({"n": 7, "x": 2.5, "i": 3, "b": true, "s": "text", "l": [1, 2], "e": [], "null": null,
          "max": 9223372036854775807})");
  const JsonFields fields(json, "c.json");
  CHECK(fields.where() == "c.json");
  CHECK(fields.integer("n", 7, 7) == 7);
  CHECK(fields.integer("max", 0) == 9223372036854775807);
  CHECK(fields.number_if("x", 2.5, 2.5) == 2.5);
  CHECK(fields.number_if("i", 0) == 3.0);
  CHECK(fields.positive_if("x") == 2.5);
  CHECK(fields.boolean_if("b") == true);
  CHECK(fields.string("s") == "text");
  CHECK(fields.integers_if("l", 0) == std::vector<std::int64_t>{1, 2});
  CHECK(fields.integers_if("n", 0) == std::vector<std::int64_t>{7});
  CHECK(fields.integers_if("e", 0) == std::vector<std::int64_t>{});
  for (const char* key : {"null", "none"}) {
    CHECK_FALSE(fields.integer_if(key, 0));
    CHECK_FALSE(fields.number_if(key, 0));
    CHECK_FALSE(fields.positive_if(key));
    CHECK_FALSE(fields.boolean_if(key));
    CHECK_FALSE(fields.string_if(key));
    CHECK_FALSE(fields.integers_if(key, 0));
  }
  CHECK(fields.present("null"));
  CHECK_FALSE(fields.present("none"));
}

TEST_CASE("bad fields are named with file, key and expectation") {
  const Json json = Json::parse(
      R"({"n": 7, "x": 2.5, "zero": 0, "b": true, "s": "te\nxt", "l": [1, "a"], "null": null, "neg": -1,
          "huge": 18446744073709551615, "o": {}, "a": [[1, 2]]})");
  const JsonFields f(json, "c.json");
  const std::vector<std::pair<std::function<void()>, std::string>> table = {
      {[&] { f.integer("none", 0); }, "none is missing, expected a whole number; add it"},
      {[&] { f.integer("null", 0); }, "null is null, expected a whole number; add it"},
      {[&] { f.string("none"); }, "none is missing, expected a string; add it"},
      {[&] { f.integer("x", 0); }, "x is 2.5, expected a whole number; correct the file"},
      {[&] { f.integer("b", 0); }, "b is true, expected a whole number; correct the file"},
      {[&] { f.integer("o", 0); }, "o is an object, expected a whole number; correct the file"},
      {[&] { f.integer("neg", 0); }, "neg is -1, expected at least 0; correct the file"},
      {[&] { f.integer("n", 1, 6); }, "n is 7, expected 1 to 6; correct the file"},
      {[&] { f.integer("huge", 0); }, "huge is 18446744073709551615, expected at least 0; correct the file"},
      {[&] { f.number_if("s", 0); }, "s is \"te\\nxt\", expected a number; correct the file"},
      {[&] { f.number_if("n", 0, 1); }, "n is 7, expected a number from 0 to 1; correct the file"},
      {[&] { f.number_if("neg", 0, 1); }, "neg is -1, expected a number from 0 to 1; correct the file"},
      {[&] { f.positive_if("zero"); }, "zero is 0, expected a number above 0; correct the file"},
      {[&] { f.boolean_if("n"); }, "n is 7, expected true or false; correct the file"},
      {[&] { f.string_if("n"); }, "n is 7, expected a string; correct the file"},
      {[&] { f.integers_if("l", 0); }, "l is \"a\", expected a whole number; correct the file"},
      {[&] { f.integers_if("neg", 0); }, "neg is -1, expected at least 0; correct the file"},
      {[&] { f.string_if("a"); }, "a is an array, expected a string; correct the file"},
  };
  for (const auto& [call, text] : table) {
    CHECK_THROWS_WITH(call(), "c.json: " + text);
    CHECK_THROWS_AS(call(), IoError);
  }
  Json deep = 1;
  for (int level = 0; level < 200'000; ++level) {
    deep = Json::array({std::move(deep)});
  }
  CHECK(JsonFields::shown(deep) == "an array");  // writing it out would overflow the stack
  CHECK_THROWS_WITH(JsonFields(Json::array(), "c.json"),
                    "c.json: is not a JSON object, expected one; check that it is the right file");
}

#include "perft/text/json_node.hpp"

#include <catch2/catch.hpp>
#include <string>

using namespace perft;

TEST_CASE("values are read where their type is right") {
  const Json json = parse_json(R"({"s": "x", "b": true, "n": null, "i": 7, "a": [{"k": 1}, 2]})", "j");
  const JsonNode root(json, "f");
  CHECK(root.at("s").string() == "x");
  CHECK(root.at("b").boolean());
  CHECK(root.boolean_or("n", true));
  CHECK_FALSE(root.boolean_or("absent", false));
  CHECK(root.has("s"));
  CHECK_FALSE(root.has("n"));
  CHECK(root.at("i").index(8) == 7);
  CHECK(root.at("a").array_size() == 2);
  CHECK(root.at("a")[0].at("k").index(2) == 1);
}

TEST_CASE("what is wrong is named by file and key, in one line") {
  const Json json = parse_json(R"({"s": 1, "a": [{}], "i": 8, "m": -1, "f": 1.5, "x\ny": 2})", "j");
  const JsonNode root(json, "f.json");
  const std::string tail = "; use the model's own tokenizer.json";
  CHECK_THROWS_WITH(root.at("q"), "f.json: key \"q\" is missing" + tail);
  CHECK_THROWS_WITH(root.at("a")[0].at("q"), "f.json: key \"a[0].q\" is missing" + tail);
  CHECK_THROWS_WITH(root.at("s").string(), "f.json: key \"s\" is wrong, expected a string" + tail);
  CHECK_THROWS_WITH(root.at("s").boolean(), "f.json: key \"s\" is wrong, expected true or false" + tail);
  CHECK_THROWS_WITH(root.at("s").array_size(), "f.json: key \"s\" is wrong, expected an array" + tail);
  CHECK_THROWS_WITH(root.at("s").at("t"), "f.json: key \"s\" is wrong, expected an object" + tail);
  CHECK_THROWS_WITH(root.at("i").index(8), "f.json: key \"i\" is wrong, expected an integer ≥ 0 and < 8" + tail);
  CHECK_THROWS_AS(root.at("m").index(8), IoError);
  CHECK_THROWS_AS(root.at("f").index(8), IoError);
  CHECK_THROWS_WITH(root.at("x\ny").string(), "f.json: key \"x\\ny\" is wrong, expected a string" + tail);
  CHECK_THROWS_WITH(root.string(), "f.json: the file is wrong, expected a string" + tail);
}

TEST_CASE("what is not supported is shown, shortened") {
  const Json json =
      parse_json(R"({"t": "x", "long": "0123456789012345678901234567890123456789012345678901234567890"})", "j");
  CHECK_THROWS_WITH(JsonNode(json, "f").at("t").unsupported("y"),
                    "f: key \"t\" is \"x\", which is not supported; expected y");
  CHECK_THROWS_WITH(JsonNode(json, "f").at("long").unsupported("y"),
                    "f: key \"long\" is \"01234567890123456789012345678901234567890123456789012345..., which is not "
                    "supported; expected y");
  CHECK_THROWS_AS(JsonNode(json, "f").at("t").unsupported("y"), UnsupportedError);
}

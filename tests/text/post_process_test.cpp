#include "perft/text/post_process.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "perft/core/error.hpp"

using namespace perft;
using Ids = std::vector<std::int32_t>;

namespace {

PostProcessor read(const std::string& text) {
  const Json json = parse_json(text, "p");
  return PostProcessor::parse(JsonNode(json, "f", "post_processor"), 100);
}

std::string templated(const std::string& single) {
  return R"({"type": "TemplateProcessing", "pair": [], "single": )" + single +
         R"(, "special_tokens": {"B": {"id": "B", "ids": [1], "tokens": ["B"]},
             "E": {"id": "E", "ids": [2, 3], "tokens": ["E", "F"]}, "W": {"id": "W", "ids": [100], "tokens": ["W"]}}})";
}

const std::string kB = R"({"SpecialToken": {"id": "B", "type_id": 0}})";
const std::string kE = R"({"SpecialToken": {"id": "E", "type_id": 0}})";
const std::string kA = R"({"Sequence": {"id": "A", "type_id": 0}})";

}  // namespace

TEST_CASE("a template puts ids before and after a text") {
  const PostProcessor both = read(templated("[" + kB + "," + kA + "," + kE + "]"));
  CHECK(both.before == Ids{1});
  CHECK(both.after == Ids{2, 3});
  CHECK(read(templated("[" + kA + "]")).before.empty());
  CHECK(read(R"({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false})").after.empty());
}

TEST_CASE("a second template goes around the first") {
  const std::string first = templated("[" + kB + "," + kA + "]");
  const std::string second = templated("[" + kE + "," + kA + "," + kB + "]");
  const PostProcessor chain = read(R"({"type": "Sequence", "processors": [)" + first + "," + second + "]}");
  CHECK(chain.before == Ids{2, 3, 1});
  CHECK(chain.after == Ids{1});
}

TEST_CASE("templates that contradict themselves are refused by key") {
  CHECK_THROWS_WITH(read(templated("[" + kB + "]")),
                    "f: key \"post_processor.single\" is wrong, expected the sequence A, once; use the model's own "
                    "tokenizer.json");
  CHECK_THROWS_AS(read(templated("[" + kA + "," + kA + "]")), IoError);
  CHECK_THROWS_AS(read(templated(R"([{"Sequence": {"id": "B", "type_id": 0}}])")), IoError);
  CHECK_THROWS_WITH(read(templated("[" + kA + R"(, {"SpecialToken": {"id": "X"}}])")),
                    "f: key \"post_processor.special_tokens.X\" is missing; use the model's own tokenizer.json");
  CHECK_THROWS_WITH(
      read(templated("[" + kA + R"(, {"SpecialToken": {"id": "W"}}])")),
      "f: key \"post_processor.special_tokens.W.ids[0]\" is wrong, expected an integer ≥ 0 and < 100; use "
      "the model's own tokenizer.json");
  CHECK_THROWS_AS(read(R"({"type": "BertProcessing"})"), UnsupportedError);
}

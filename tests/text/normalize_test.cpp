#include "perft/text/normalize.hpp"

#include <catch2/catch.hpp>
#include <string>

#include "perft/core/error.hpp"

using namespace perft;

namespace {

std::string nfc_of(std::string_view text) {
  std::string storage;
  return std::string(nfc(text, storage));
}

std::string normalized(const std::string& json, std::string_view text) {
  const Json value = parse_json(json, "n");
  std::string storage;
  return std::string(Normalizer::parse(JsonNode(value, "f", "normalizer")).apply(text, storage));
}

}  // namespace

TEST_CASE("NFC composes, reorders and leaves alone what it must") {
  CHECK(nfc_of("e\u0301") == "é");
  CHECK(nfc_of("xe\u0301y") == "xéy");
  CHECK(nfc_of("a\u0301\u0323") == "ạ\u0301");  // the mark below goes first, then composes
  CHECK(nfc_of("\u212B") == "Å");               // singleton
  CHECK(nfc_of("\u0958") == "\u0915\u093C");    // composition exclusion
  CHECK(nfc_of("\u1100\u1161\u11A8") == "각");  // Hangul
  CHECK(nfc_of("가\u11A8") == "각");
  CHECK(nfc_of("\u0301a") == "\u0301a");      // no base
  CHECK(nfc_of("\u09C7\u09BE") == "\u09CB");  // a second character that is itself a starter
  CHECK(nfc_of("é日本\u0627") == "é日本\u0627");
}

TEST_CASE("NFC leaves characters alone that Unicode 9 does not know") {
  CHECK(nfc_of("\U00011935\U00011930") == "\U00011935\U00011930");  // composes since Unicode 13
  CHECK(nfc_of("a\u0898\u0323") == "a\u0898\u0323");                // U+0898 reorders since Unicode 14
}

TEST_CASE("NFC returns unchanged text without copying it") {
  const std::string text = "plain, 日本語, é";
  std::string storage;
  CHECK(nfc(text, storage).data() == text.data());
}

TEST_CASE("NFC of long runs of marks takes n log n steps") {
  std::string marks = "a";
  for (int i = 0; i < 200000; ++i)
    marks += i % 2 == 0 ? "\u0315" : "\u0327";  // 232 before 202: every pair is out of order
  const std::string sorted = nfc_of(marks);
  CHECK(sorted.substr(0, 5) == "a\u0327\u0327");
  CHECK(sorted.size() == marks.size());
}

TEST_CASE("Prepend, Replace and Sequence do what they say, and nothing to an empty text") {
  const std::string llama = R"({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]})";
  CHECK(normalized(llama, "a  b") == "▁a▁▁b");
  CHECK(normalized(llama, " ") == "▁▁");
  CHECK(normalized(llama, "") == "");
  CHECK(normalized(R"({"type": "Replace", "pattern": {"String": "aa"}, "content": "a"})", "aaaaa") == "aaa");
  CHECK(normalized(R"({"type": "NFC"})", "e\u0301") == "é");
}

TEST_CASE("normalisers that are not implemented are refused by name") {
  CHECK_THROWS_WITH(
      normalized(R"({"type": "Lowercase"})", ""),
      "f: key \"normalizer.type\" is \"Lowercase\", which is not supported; expected NFC, Prepend, Replace, "
      "Sequence");
  CHECK_THROWS_AS(normalized(R"({"type": "Replace", "pattern": {"Regex": "a+"}, "content": ""})", ""),
                  UnsupportedError);
  CHECK_THROWS_AS(normalized(R"({"type": "Replace", "pattern": {"String": ""}, "content": "x"})", ""), IoError);
  CHECK_THROWS_AS(normalized(R"({"type": "Prepend"})", ""), IoError);
}

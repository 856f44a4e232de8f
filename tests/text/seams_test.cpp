#include "perft/text/seams.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

using namespace perft;

namespace {

/// `text` with | at its seams, for a model with these tokens, of which those of two characters and more are products.
std::string cut(const std::vector<std::string>& tokens, std::string_view text) {
  Vocabulary vocabulary;
  std::vector<BpeRule> rules;
  for (const std::string& token : tokens) {
    const std::int32_t id = vocabulary.size();
    vocabulary.add(token, id, true);
    if (token.size() > utf8_length(token[0])) rules.push_back({0, 0, id});
  }
  std::string out;
  Seams(vocabulary, rules).split(text, [&](std::string_view part) { out += std::string(part) + "|"; });
  return out;
}

}  // namespace

TEST_CASE("a text is cut where no product has its two neighbours side by side") {
  CHECK(cut({"a", "b", "ab"}, "abab") == "ab|ab|");
  CHECK(cut({"a", "b", "c", "abc"}, "abcabca") == "abc|abc|a|");
  CHECK(cut({"a", "b", "▁", "▁a", "ab"}, "▁ab▁ab▁▁a") == "▁ab|▁ab|▁|▁a|");
  CHECK(cut({"a", "▁", "▁▁", "▁a"}, "▁▁▁a▁a") == "▁▁▁a|▁a|");
  CHECK(cut({"a", "b"}, "ab") == "a|b|");
}

TEST_CASE("characters beyond ASCII count as one class, and do not hide the character of spaces") {
  CHECK(cut({"é", "ü", "a", "éa"}, "aéaüa") == "aéaüa|");  // é before a joins ü before a too
  CHECK(cut({"▖", "▁", "▖▁"}, "▖▁▖▁") == "▖▁▖▁|");         // shares two bytes with ▁
  CHECK(cut({"▖", "▁", "a", "▁a"}, "▖▁a▖▁a") == "▖|▁a▖|▁a|");
}

TEST_CASE("there is no seam before a character that is not a token") {
  CHECK(cut({"a"}, "aXXa") == "aXX|a|");
  CHECK(cut({"a"}, "a▁a") == "a▁|a|");
}

TEST_CASE("without rules given there are no seams") {
  std::string out;
  Seams().split("a b▁c", [&](std::string_view part) { out += std::string(part) + "|"; });
  CHECK(out == "a b▁c|");
}

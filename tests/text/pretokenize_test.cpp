#include "perft/text/pretokenize.hpp"

#include <catch2/catch.hpp>
#include <string>

#include "perft/core/error.hpp"

using namespace perft;

namespace {

std::string words(const std::string& json, std::string_view text, bool at_start = true) {
  const Json value = parse_json(json, "p");
  std::string out;
  PreTokenizer::parse(JsonNode(value, "f", "pre_tokenizer")).split(text, at_start, [&](std::string_view word) {
    out += std::string(word) + "|";
  });
  return out;
}

const std::string kGpt2 = R"({"type": "ByteLevel", "add_prefix_space": false})";

}  // namespace

TEST_CASE("the GPT-2 pattern is scanned alternative by alternative") {
  CHECK(words(kGpt2, "Hello world") == "Hello| world|");
  CHECK(words(kGpt2, "it's we've I'LL they'll 'tis") == "it|'s| we|'ve| I|'|LL| they|'ll| '|tis|");
  CHECK(words(kGpt2, "x's 's") == "x|'s| '|s|");  // the space takes the apostrophe before a contraction can
  CHECK(words(kGpt2, "abc123 45,6") == "abc|123| 45|,|6|");
  CHECK(words(kGpt2, "a=b?! c") == "a|=|b|?!| c|");
  CHECK(words(kGpt2, "½²Ⅷ٣") == "½²Ⅷ٣|");
  CHECK(words(kGpt2, "e\u0301a") == "e|\u0301|a|");
  CHECK(words(kGpt2, "'") == "'|");
  CHECK(words(kGpt2, "'r'lx") == "'|r|'|lx|");
}

TEST_CASE("white space leaves its last character to the word after it") {
  CHECK(words(kGpt2, "a  b") == "a| | b|");
  CHECK(words(kGpt2, "a \n\n b") == "a| \n\n| b|");
  CHECK(words(kGpt2, "a\n\nb") == "a|\n|\n|b|");
  CHECK(words(kGpt2, "a\tb") == "a|\t|b|");
  CHECK(words(kGpt2, "a   ") == "a|   |");
  CHECK(words(kGpt2, " ") == " |");
  CHECK(words(kGpt2, "\u3000\u3000x") == "\u3000|\u3000|x|");
}

TEST_CASE("ByteLevel can add a space and leave the text whole") {
  CHECK(words(R"({"type": "ByteLevel", "add_prefix_space": true})", "a b") == " a| b|");
  CHECK(words(R"({"type": "ByteLevel", "add_prefix_space": true})", " a") == " a|");
  CHECK(words(R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false})", "a b") == "a b|");
  CHECK(words(R"({"type": "Sequence", "pretokenizers": [)" + kGpt2 + "]}", "a b") == "a| b|");
}

TEST_CASE("Metaspace prepends by its scheme and splits before its character") {
  const auto metaspace = [](const std::string& more) {
    return R"({"type": "Metaspace", "replacement": "▁")" + more + "}";
  };
  CHECK(words(metaspace(""), "a  b", false) == "▁a|▁|▁b|");
  CHECK(words(metaspace(R"(, "split": false)"), "a b") == "▁a▁b|");
  CHECK(words(metaspace(R"(, "split": false)"), " a") == "▁a|");
  CHECK(words(metaspace(R"(, "split": false)"), "▁a") == "▁a|");
  CHECK(words(metaspace(R"(, "prepend_scheme": "first", "split": false)"), "a", true) == "▁a|");
  CHECK(words(metaspace(R"(, "prepend_scheme": "first", "split": false)"), "a", false) == "a|");
  CHECK(words(metaspace(R"(, "prepend_scheme": "never")"), "a b") == "a|▁b|");
  CHECK(words(metaspace(R"(, "add_prefix_space": false)"), "a") == "a|");
  CHECK_THROWS_AS(words(metaspace(R"(, "add_prefix_space": false, "prepend_scheme": "always")"), "a"), IoError);
  CHECK_THROWS_AS(words(metaspace(R"(, "prepend_scheme": "last")"), "a"), UnsupportedError);
  CHECK_THROWS_AS(words(R"({"type": "Metaspace", "replacement": "ab"})", "a"), IoError);
}

TEST_CASE("pre-tokenisers that are not implemented are refused by name") {
  CHECK_THROWS_WITH(words(R"({"type": "Whitespace"})", "a"),
                    "f: key \"pre_tokenizer.type\" is \"Whitespace\", which is not supported; expected ByteLevel, "
                    "Metaspace, a Sequence of one of them");
  CHECK_THROWS_AS(words(R"({"type": "Sequence", "pretokenizers": []})", "a"), UnsupportedError);
}

TEST_CASE("the byte alphabet is GPT-2's, both ways") {
  const ByteAlphabet& alphabet = ByteAlphabet::get();
  CHECK(alphabet.spell(" the\n") == "ĠtheĊ");
  CHECK(alphabet.spell("\xAD") == "Ń");
  CHECK(alphabet.byte(U' ') == -1);
  CHECK(alphabet.byte(U'\u0144') == -1);
  CHECK(alphabet.byte(U'\U0001F642') == -1);
  for (int b = 0; b < 256; ++b) {
    CHECK(alphabet.byte(alphabet.character(static_cast<unsigned char>(b))) == b);
  }
}

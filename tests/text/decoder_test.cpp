#include "perft/text/decoder.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "perft/core/error.hpp"

using namespace perft;

namespace {

std::string run(const DecoderChain& chain, const std::vector<std::string>& tokens) {
  DecoderChain::State state = chain.start();
  std::string out;
  for (const std::string& token : tokens) chain.push(state, token, out);
  chain.finish(state, out);
  return out;
}

std::string decode(const std::string& json, const std::vector<std::string>& tokens) {
  const Json value = parse_json(json, "d");
  return run(DecoderChain::parse(JsonNode(value, "f", "decoder")), tokens);
}

std::string sequence(const std::string& parts) {
  return R"({"type": "Sequence", "decoders": [)" + parts + "]}";
}

const std::string kReplace = R"({"type": "Replace", "pattern": {"String": "▁"}, "content": " "})";
const std::string kBytes = R"({"type": "ByteFallback"})";
const std::string kFuse = R"({"type": "Fuse"})";
const std::string kStrip = R"({"type": "Strip", "content": " ", "start": 1, "stop": 0})";
const std::string kLlama = sequence(kReplace + "," + kBytes + "," + kFuse + "," + kStrip);
const std::string kByteLevel = R"({"type": "ByteLevel"})";
const std::string kBad = "\uFFFD";

}  // namespace

TEST_CASE("the Llama decoder turns ▁ into spaces and strips the first") {
  CHECK(decode(kLlama, {"▁Hello", "▁wor", "ld"}) == "Hello world");
  CHECK(decode(kLlama, {"▁▁▁a"}) == "  a");
  CHECK(decode(kLlama, {"▁", "▁a"}) == " a");
  CHECK(decode(kLlama, {"", "▁a"}) == "a");
  CHECK(decode(kLlama, {"a", "▁b"}) == "a b");
  CHECK(decode(kLlama, {}) == "");
}

TEST_CASE("a run of byte tokens is one text, or one U+FFFD a byte") {
  CHECK(decode(kLlama, {"a", "<0xC3>", "<0xA9>", "b"}) == "aéb");
  CHECK(decode(kLlama, {"<0x0A>", "<0x0a>"}) == "\n\n");
  CHECK(decode(kLlama, {"<0xC3>"}) == kBad);
  CHECK(decode(kLlama, {"<0xC3>", "<0xA9>", "<0xC3>"}) == kBad + kBad + kBad);
  CHECK(decode(kLlama, {"<0x41>", "<0xFF>", "x", "<0x41>"}) == kBad + kBad + "xA");
  CHECK(decode(kLlama, {"<0x20>", "a"}) == "a");  // stripped: bytes are text before Strip
  CHECK(decode(kLlama, {"<0xG1>", "<0x1>", "<0x111>"}) == "<0xG1><0x1><0x111>");
}

TEST_CASE("the ByteLevel decoder spells bytes and replaces ill-formed parts") {
  CHECK(decode(kByteLevel, {"ĠtheĊ", "x"}) == " the\nx");
  CHECK(decode(kByteLevel, {"Ã", "©"}) == "é");
  CHECK(decode(kByteLevel, {"Ã", "x"}) == kBad + "x");
  CHECK(decode(kByteLevel, {"ð", "Ł", "Ļ"}) == kBad);  // F0 9F 99: one incomplete character
  CHECK(decode(kByteLevel, {"ð", "Ł", "Ļ", "Ĥ"}) == "🙂");
  CHECK(decode(kByteLevel, {"Ļ", "Ļ"}) == kBad + kBad);
  CHECK(decode(kByteLevel, {"a b", "你"}) == "a b你");  // tokens that are not of the alphabet are themselves
}

TEST_CASE("Metaspace drops the spaces of the first token if it prepends") {
  const auto metaspace = [](const std::string& scheme) {
    return R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": ")" + scheme + "\"}";
  };
  CHECK(decode(metaspace("always"), {"▁a▁b", "▁c"}) == "ab c");
  CHECK(decode(metaspace("never"), {"▁a", "▁c"}) == " a c");
}

TEST_CASE("Strip before Fuse works on each token, at both ends") {
  const std::string strip = R"({"type": "Strip", "content": "x", "start": 2, "stop": 1})";
  CHECK(decode(sequence(strip + "," + kFuse), {"xxxaxx", "xb", "x"}) == "xaxb");
}

TEST_CASE("without a decoder tokens are joined by spaces") {
  CHECK(run(DecoderChain(), {"a", "b", "c"}) == "a b c");
  CHECK(run(DecoderChain(), {}) == "");
}

TEST_CASE("decoders that are not implemented are refused by key") {
  CHECK_THROWS_WITH(
      decode(R"({"type": "CTC"})", {}),
      "f: key \"decoder.type\" is \"CTC\", which is not supported; expected ByteFallback, ByteLevel, Fuse, "
      "Metaspace, Replace, Sequence, Strip");
  CHECK_THROWS_WITH(
      decode(sequence(kFuse + "," + kReplace), {}),
      "f: key \"decoder.decoders[1].type\" is \"Replace\", which is not supported; expected Fuse or Strip "
      "after Fuse or ByteLevel");
  CHECK_THROWS_AS(decode(sequence(kFuse + R"(,{"type": "Strip", "content": " ", "start": 0, "stop": 1})"), {}),
                  UnsupportedError);
  CHECK_THROWS_AS(decode(R"({"type": "Strip", "content": "", "start": 0, "stop": 0})", {}), IoError);
}

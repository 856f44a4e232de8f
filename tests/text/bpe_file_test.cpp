#include "perft/text/bpe_file.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "perft/core/error.hpp"
#include "text/fixture.hpp"

using namespace perft;

namespace {

std::vector<std::int32_t> encode(const Json& model, std::string_view word) {
  Vocabulary vocabulary;
  const Bpe bpe = read_bpe(JsonNode(model, "f", "model"), false, vocabulary);
  BpeScratch scratch;
  std::vector<std::int32_t> ids;
  bpe.encode(vocabulary, word, scratch, ids);
  return ids;
}

}  // namespace

TEST_CASE("merges are read in both spellings") {
  Json model = text_test::tiny()["model"];
  CHECK(encode(model, "abcab") == std::vector<std::int32_t>{4, 3});
  model["merges"] = parse_json(R"(["#version: 0.2", "a b", "ab c"])", "m");
  CHECK(encode(model, "abcab") == std::vector<std::int32_t>{4, 3});
  model.erase("type");
  CHECK(encode(model, "abc") == std::vector<std::int32_t>{4});
}

TEST_CASE("merges of tokens that hold a space need the pair spelling") {
  Json model = text_test::tiny()["model"];
  model["vocab"]["a "] = 7;
  model["merges"] = parse_json(R"([["a", " "]])", "m");
  CHECK(encode(model, "a b") == std::vector<std::int32_t>{7, 1});
  model["merges"] = parse_json(R"(["a  "])", "m");
  CHECK_THROWS_WITH(
      encode(model, "a"),
      "f: key \"model.merges[0]\" is wrong, expected two tokens that are, alone and joined, in model.vocab: "
      "\"a b\" or [\"a\", \"b\"]; use the model's own tokenizer.json");
}

TEST_CASE("merges and ids that contradict the vocabulary are refused by key") {
  const auto error = [](const std::string& key, const Json& value) -> std::string {
    Json model = text_test::tiny()["model"];
    model[key] = value;
    try {
      encode(model, "a");
    } catch (const IoError& e) {
      return e.what();
    }
    return "";
  };
  for (const Json& merges :
       parse_json(R"([[["a", "q"]], [["a", "c"]], [["a"]], ["ab"], [7], [["a", 1]], ["a b c"]])", "m")) {
    CAPTURE(merges.dump());
    CHECK(error("merges", merges).find("f: key \"model.merges[0]\" is wrong") == 0);
  }
  CHECK(error("merges", 1).find("f: key \"model.merges\" is wrong, expected an array") == 0);
  CHECK(error("vocab", Json::array()).find("f: key \"model.vocab\" is wrong, expected an object") == 0);
  CHECK(error("vocab", parse_json(R"({"a": -1})", "v"))
            .find("f: key \"model.vocab[a]\" is wrong, expected an integer ≥ 0") == 0);
  CHECK(error("vocab", parse_json(R"({"a": 65552})", "v"))
            .find("f: key \"model.vocab[a]\" is wrong, expected an integer ≥ 0 and < 65552") == 0);
  CHECK(error("vocab", parse_json(R"({"a": 1, "b": 1})", "v"))
            .find("f: key \"model.vocab[b]\" is wrong, expected an id that no other") == 0);
  CHECK(error("unk_token", "<none>").find("f: key \"model.unk_token\" is wrong, expected a token of model.vocab") == 0);
  CHECK(error("byte_fallback", 1).find("f: key \"model.byte_fallback\" is wrong, expected true or false") == 0);
}

TEST_CASE("models that are not implemented are refused by key") {
  const auto error = [](const std::string& key, const Json& value) -> std::string {
    Json model = text_test::tiny()["model"];
    model[key] = value;
    try {
      encode(model, "a");
    } catch (const UnsupportedError& e) {
      return e.what();
    }
    return "";
  };
  CHECK(error("type", "Unigram") == "f: key \"model.type\" is \"Unigram\", which is not supported; expected BPE");
  CHECK(error("dropout", 0.1) == "f: key \"model.dropout\" is 0.1, which is not supported; expected null");
  CHECK(error("dropout", 0.0) == "");
  CHECK(error("end_of_word_suffix", "</w>").find("f: key \"model.end_of_word_suffix\" is") == 0);
  CHECK(error("continuing_subword_prefix", "##").find("f: key \"model.continuing_subword_prefix\" is") == 0);
  CHECK(error("continuing_subword_prefix", "") == "");
}

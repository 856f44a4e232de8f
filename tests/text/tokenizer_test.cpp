#include "perft/text/tokenizer.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "perft/core/error.hpp"
#include "text/fixture.hpp"

using namespace perft;
using text_test::added;
using text_test::load_error;
using text_test::mixtral;
using text_test::olmoe;
using text_test::tiny;
using Ids = std::vector<std::int32_t>;

namespace {

Json golden(const std::string& name) {
  const std::string path = text_test::fixture(name + "/golden.json");
  return parse_json(read_text_file(path), path);
}

std::string streamed(const Tokenizer& tokenizer, const Ids& ids, bool skip_special) {
  StreamDecoder decoder(tokenizer, skip_special);
  std::string text;
  for (const std::int32_t id : ids) {
    const std::string part = decoder.push(id);
    if (find_invalid_utf8(part) != std::string_view::npos) return "half a character was emitted";
    text += part;
  }
  return text + decoder.finish();
}

/// A word of English syllables, so that nearly every pair of neighbours is merged.
std::string long_word(std::size_t bytes) {
  const std::vector<std::string> syllables = {"in", "for", "ma", "tion", "er", "est",
                                              "al", "ing", "re", "con",  "de", "ther"};
  std::string word;
  for (std::size_t i = 0; word.size() < bytes; ++i) word += syllables[(i * i + i / 7) % syllables.size()];
  return word.substr(0, bytes);
}

double seconds(const Tokenizer& tokenizer, const std::string& text) {
  const auto start = std::chrono::steady_clock::now();
  const std::size_t count = tokenizer.encode(text).size();
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  return count > 0 ? taken.count() : 0;
}

}  // namespace

TEST_CASE("every golden row is reproduced") {
  for (const auto& [name, tokenizer] : {std::pair("olmoe", &olmoe()), std::pair("mixtral", &mixtral())}) {
    const Json rows = golden(name);
    CHECK(rows.size() == 198);
    for (const Json& row : rows) {
      const auto text = row.at("text").get<std::string>();
      const auto ids = row.at("ids").get<Ids>();
      CAPTURE(name, text);
      CHECK(tokenizer->encode(text) == ids);
      CHECK(tokenizer->encode(text, false) == row.at("ids_no_special").get<Ids>());
      CHECK(tokenizer->decode(ids) == row.at("decoded").get<std::string>());
    }
  }
}

TEST_CASE("streams are whole characters and add up to decode, wherever ids are cut") {
  for (const auto& [name, tokenizer] : {std::pair("olmoe", &olmoe()), std::pair("mixtral", &mixtral())}) {
    std::size_t wrong = 0;
    for (const Json& row : golden(name)) {
      const auto all = row.at("ids").get<Ids>();
      // Every start and every end of a row's ids cuts some character in half.
      const std::size_t count = std::min<std::size_t>(all.size(), 40);
      for (std::size_t begin = 0; begin < count; ++begin) {
        const Ids tail(all.begin() + static_cast<std::ptrdiff_t>(begin),
                       all.begin() + static_cast<std::ptrdiff_t>(count));
        const Ids head(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(begin + 1));
        for (const bool skip : {true, false}) {
          wrong += streamed(*tokenizer, tail, skip) == tokenizer->decode(tail, skip) ? 0 : 1;
          wrong += streamed(*tokenizer, head, skip) == tokenizer->decode(head, skip) ? 0 : 1;
        }
      }
    }
    CAPTURE(name);
    CHECK(wrong == 0);
  }
}

TEST_CASE("a stream gives text as soon as it is certain, and can be used again") {
  StreamDecoder decoder(olmoe());
  const Ids ids = olmoe().encode("a\U00012000b");
  std::vector<std::string> parts;
  for (const std::int32_t id : ids) parts.push_back(decoder.push(id));
  CHECK(parts.front() == "a");
  CHECK(parts.back() == "b");
  CHECK(decoder.finish().empty());
  CHECK(ids.size() > 3);
  CHECK(decoder.push(ids[1]).empty());  // the first bytes of U+12000
  CHECK(decoder.finish() == "\uFFFD");
  CHECK(decoder.push(ids.front()) == "a");
}

TEST_CASE("special tokens are added and left out as asked") {
  CHECK(mixtral().encode("") == Ids{1});
  CHECK(mixtral().encode("", false).empty());
  CHECK(mixtral().encode("a</s>b", false) == Ids{264, 2, 287});
  CHECK(mixtral().decode(Ids{1, 264, 2}) == "a");
  CHECK(mixtral().decode(Ids{1, 264, 2}, false) == "<s> a</s>");
  CHECK(olmoe().encode("<|endoftext|>") == Ids{50279});
  CHECK(olmoe().decode(Ids{50279}).empty());
  CHECK(olmoe().decode(Ids{0}) == "|||IP_ADDRESS|||");  // an added token, but not a special one
}

TEST_CASE("a run of spaces is the added token of its length") {
  for (int n = 2; n <= 24; ++n) {
    CHECK(olmoe().encode(std::string(static_cast<std::size_t>(n), ' ')) == Ids{50278 - n});
  }
  CHECK(olmoe().encode(std::string(26, ' ')) == Ids{50254, 50276});
  CHECK(olmoe().encode(std::string(25, ' ')) == Ids{50254, 209});
}

TEST_CASE("ids and tokens can be looked up") {
  CHECK(olmoe().vocab_size() == 50280);
  CHECK(mixtral().vocab_size() == 32000);
  CHECK(mixtral().id("<s>") == 1);
  CHECK(mixtral().id("no such token") == std::nullopt);
  CHECK(mixtral().token(2) == "</s>");
  CHECK(mixtral().is_special(2));
  CHECK_FALSE(mixtral().is_special(3));
  CHECK_FALSE(olmoe().is_special(50254));
}

TEST_CASE("ids without a token are errors") {
  const std::string message = "tokenizer: id 32000 has no token, expected 0 ≤ id < 32000";
  CHECK_THROWS_WITH(mixtral().decode(Ids{5, 32000}), message);
  CHECK_THROWS_WITH(mixtral().token(32000), message);
  CHECK_THROWS_WITH(mixtral().is_special(32000), message);
  CHECK_THROWS_WITH(StreamDecoder(mixtral()).push(32000), message);
  CHECK_THROWS_AS(mixtral().decode(Ids{-1}), ValueError);
  Json holes = tiny();
  holes["model"]["vocab"]["z"] = 9;
  CHECK_THROWS_WITH(text_test::load(holes).decode(Ids{8}), "tokenizer: id 8 has no token, expected 0 ≤ id < 10");
}

TEST_CASE("text that is not UTF-8 is an error with its byte") {
  CHECK_THROWS_WITH(olmoe().encode("ab\xFFz"), "tokenizer: text is not valid UTF-8 at byte 2; convert it first");
  CHECK_THROWS_AS(olmoe().encode("\xED\xA0\x80"), ValueError);
}

TEST_CASE("added tokens are found before, or after, normalising") {
  Json json = tiny();
  json["normalizer"] = parse_json(R"({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                                      {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]})",
                                  "n");
  json["decoder"] = parse_json(R"({"type": "Replace", "pattern": {"String": "▁"}, "content": " "})", "d");
  Json normalized = added(8, "a c");
  normalized["normalized"] = true;
  Json special = added(9, "S");
  special["special"] = true;
  special["normalized"] = true;
  json["added_tokens"] = {added(7, "b b"), normalized, special};
  const Tokenizer tokenizer = text_test::load(json);
  CHECK(tokenizer.encode("ab b") == Ids{6, 0, 7});
  CHECK(tokenizer.encode("a c") == Ids{8});
  CHECK(tokenizer.encode("b a c") == Ids{6, 1, 8});
  CHECK(tokenizer.encode("aa c") == Ids{6, 0, 0, 6, 2});
  CHECK(tokenizer.decode(Ids{0, 8, 7}) == "a a cb b");  // the normalised one in its normalised form
  CHECK(tokenizer.decode(Ids{0, 9}) == "a");
  CHECK(tokenizer.decode(Ids{0, 9}, false) == "a S");
}

TEST_CASE("an added token that is no match stays out of the model") {
  Json json = tiny();
  Json word = added(7, "q");
  word["single_word"] = true;
  json["added_tokens"] = {word};
  const Tokenizer tokenizer = text_test::load(json);
  CHECK(tokenizer.encode("a q") == Ids{0, 5, 7});
  CHECK(tokenizer.encode("aq") == Ids{0});
}

TEST_CASE("Metaspace prepends to the start of the text only, if told so") {
  Json json = tiny();
  json["pre_tokenizer"] =
      parse_json(R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false})", "p");
  json["added_tokens"] = {added(7, "<s>")};
  const Tokenizer tokenizer = text_test::load(json);
  CHECK(tokenizer.encode("ab c<s>a") == Ids{6, 3, 6, 2, 7, 0});
  CHECK(tokenizer.encode("<s>a b") == Ids{7, 0, 6, 1});
}

TEST_CASE("added tokens that contradict the file are refused by key") {
  const auto error = [](const Json& first, const Json& second = nullptr) {
    Json json = tiny();
    json["added_tokens"] = {first};
    if (!second.is_null()) json["added_tokens"].push_back(second);
    return load_error<IoError>(json.dump());
  };
  const std::string tail = "; use the model's own tokenizer.json";
  const std::string id = " is wrong, expected the id that model.vocab has for this content, or one that is free" + tail;
  CHECK(error(added(1, "a")) == "F: key \"added_tokens[0].id\"" + id);
  CHECK(error(added(1, "new")) == "F: key \"added_tokens[0].id\"" + id);
  CHECK(error(added(7, "x"), added(7, "y")) == "F: key \"added_tokens[1].id\"" + id);
  CHECK(error(added(7, "x"), added(7, "x")) ==
        "F: key \"added_tokens[1].content\" is wrong, expected a content that is listed once" + tail);
  CHECK(error(added(0, "a")) == "");
  CHECK(error(added(0, "")) == "");
  Json incomplete = added(7, "x");
  incomplete.erase("special");
  CHECK(error(incomplete) == "F: key \"added_tokens[0].special\" is missing" + tail);
}

TEST_CASE("files that are missing, truncated or of another kind are named") {
  CHECK_THROWS_AS(Tokenizer::load("no/such/tokenizer.json"), IoError);
  const std::string whole = read_text_file(text_test::fixture("mixtral/tokenizer.json"));
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{1}, whole.size() / 3, whole.size() - 3}) {
    CAPTURE(bytes);
    CHECK(load_error<IoError>(whole.substr(0, bytes)).find("F: not valid JSON at byte") == 0);
  }
  CHECK(load_error<IoError>("[1]").find("F: the file is wrong, expected a JSON object") == 0);
  CHECK(load_error<IoError>("{}").find("F: key \"model\" is missing") == 0);
  CHECK(load_error<IoError>(R"({"model": {"vocab": {"\ud800": 1}}})").find("F: not valid JSON") == 0);
  CHECK(load_error<IoError>(R"({"model": {"type": "BPE", "vocab": {"a": 0, "a": 1}, "merges": []}})").find("F: ") == 0);
  CHECK(load_error<IoError>(std::string(100000, '[')).find("F: ") == 0);
}

TEST_CASE("every top-level part that is missing, mistyped or unknown is named") {
  const std::string parts[] = {"normalizer", "pre_tokenizer", "post_processor", "decoder", "model"};
  for (const std::string& part : parts) {
    CAPTURE(part);
    Json json = tiny();
    json[part] = 7;
    CHECK(load_error<IoError>(json.dump()).find("F: key \"" + part + "\" is wrong, expected an object") == 0);
    json[part] = {{"type", "Nobody"}};
    CHECK(load_error<UnsupportedError>(json.dump()).find("F: key \"" + part + ".type\" is \"Nobody\"") == 0);
  }
  for (const std::string part : {"truncation", "padding"}) {
    Json json = tiny();
    json[part] = {{"direction", "Right"}};
    CHECK(load_error<UnsupportedError>(json.dump()) ==
          "F: key \"" + part + "\" is {\"direction\":\"Right\"}, which is not supported; expected null");
  }
  Json json = tiny();
  json["version"] = "2.0";
  CHECK(load_error<UnsupportedError>(json.dump()).find("F: key \"version\" is \"2.0\"") == 0);
}

TEST_CASE("a word of a megabyte takes n log n steps") {
  // Quadratic merging would take 64 times as long for 8 times the text; n log n takes 10 times.
  for (const Tokenizer* tokenizer : {&olmoe(), &mixtral()}) {
    const std::string word = long_word(std::size_t{1} << 20);
    const double small = std::min(seconds(*tokenizer, word.substr(0, word.size() / 8)),
                                  seconds(*tokenizer, word.substr(word.size() / 8, word.size() / 8)));
    CHECK(seconds(*tokenizer, word) < 32 * small);
    CHECK(tokenizer->decode(tokenizer->encode(word)) == word);
    const std::string same(std::size_t{1} << 20, 'a');
    CHECK(tokenizer->decode(tokenizer->encode(same)) == same);
  }
}

#include "perft/text/bpe.hpp"

#include <catch2/catch.hpp>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

using namespace perft;

namespace {

struct Model {
  Vocabulary vocabulary;
  std::vector<BpeRule> rules;

  std::int32_t add(const std::string& token) {
    vocabulary.add(token, vocabulary.size(), true);
    return vocabulary.find(token);
  }

  void merge(const std::string& left, const std::string& right) {
    add(left + right);
    rules.push_back({vocabulary.find(left), vocabulary.find(right), vocabulary.find(left + right)});
  }

  /// The tokens of `word`, separated by |.
  std::string encode(const std::string& word, BpeOptions options = {}) const {
    const Bpe bpe(vocabulary, rules, options);
    BpeScratch scratch;
    std::string out;
    for (int repeat = 0; repeat < 2; ++repeat) {  // the second time from the cache
      std::vector<std::int32_t> ids;
      bpe.encode(vocabulary, word, scratch, ids);
      std::string text;
      for (const std::int32_t id : ids) text += vocabulary.token(id) + "|";
      if (repeat == 1 && text != out) return "the cache differs: " + text;
      out = text;
    }
    return out;
  }
};

Model letters(const std::string& text) {
  Model model;
  for (const char c : text) model.add(std::string(1, c));
  return model;
}

/// The definition: the first pair of the lowest rank, again and again.
std::vector<std::int32_t> naive(const Model& model, const std::string& word) {
  std::map<std::pair<std::int32_t, std::int32_t>, std::size_t> ranks;
  for (std::size_t i = 0; i < model.rules.size(); ++i) ranks[{model.rules[i].left, model.rules[i].right}] = i;
  std::vector<std::int32_t> ids;
  for (const char c : word) ids.push_back(model.vocabulary.find(std::string(1, c)));
  while (true) {
    std::size_t best = model.rules.size();
    std::size_t at = 0;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto rank = ranks.find({ids[i], ids[i + 1]});
      if (rank != ranks.end() && rank->second < best) {
        best = rank->second;
        at = i;
      }
    }
    if (best == model.rules.size()) return ids;
    ids[at] = model.rules[best].product;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

}  // namespace

TEST_CASE("the lowest rank is merged first, the leftmost among equals") {
  Model model = letters("abc");
  model.merge("b", "c");
  model.merge("a", "b");
  model.merge("a", "a");
  CHECK(model.encode("abc") == "a|bc|");
  CHECK(model.encode("abab") == "ab|ab|");
  CHECK(model.encode("aaa") == "aa|a|");
  CHECK(model.encode("a") == "a|");
}

TEST_CASE("short and long words are merged as the definition says") {
  Model model = letters("abcd");
  std::uint64_t seed = 1;
  const auto next = [&seed](std::size_t below) {
    seed = seed * 6364136223846793005U + 1442695040888963407U;
    return static_cast<std::size_t>(seed >> 33) % below;
  };
  while (model.rules.size() < 60) {
    const auto pick = [&] {
      return model.vocabulary.token(static_cast<std::int32_t>(next(static_cast<std::size_t>(model.vocabulary.size()))));
    };
    const std::string left = pick();
    const std::string right = pick();
    if (left.size() + right.size() < 9) model.merge(left, right);
  }
  const Bpe bpe(model.vocabulary, model.rules, {});
  BpeScratch scratch;
  int wrong = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string word;
    for (std::size_t n = 1 + next(i % 2 == 0 ? 30 : 300); n > 0; --n) word += static_cast<char>('a' + next(4));
    std::vector<std::int32_t> ids;
    bpe.encode(model.vocabulary, word, scratch, ids);
    wrong += ids == naive(model, word) ? 0 : 1;
  }
  CHECK(wrong == 0);
}

TEST_CASE("unknown characters are left out, replaced, fused or spelled in bytes") {
  Model model = letters("ab");
  BpeOptions options;
  CHECK(model.encode("aéb", options) == "a|b|");
  options.unk = model.add("<unk>");
  CHECK(model.encode("aéüb", options) == "a|<unk>|<unk>|b|");
  options.fuse_unk = true;
  CHECK(model.encode("aéüb🙂", options) == "a|<unk>|b|<unk>|");
  options.byte_fallback = true;
  CHECK(model.encode("aé", options) == "a|<unk>|");  // not both bytes are tokens
  model.add("<0xC3>");
  model.add("<0xA9>");
  CHECK(model.encode("aéb", options) == "a|<0xC3>|<0xA9>|b|");
  CHECK(model.encode("üéb", options) == "<0xC3>|<0xA9>|<unk>|b|");  // the reference's order
}

TEST_CASE("characters around one that is left out are merged") {
  Model model = letters("ab");
  model.merge("a", "b");
  CHECK(model.encode("aéb") == "ab|");
}

TEST_CASE("ignore_merges takes a word that is a token") {
  Model model = letters("abc");
  model.add("abc");
  CHECK(model.encode("abc") == "a|b|c|");
  BpeOptions options;
  options.ignore_merges = true;
  CHECK(model.encode("abc", options) == "abc|");
  CHECK(model.encode("abcabc", options) == "a|b|c|a|b|c|");
}

TEST_CASE("byte-level words are spelled in the byte alphabet, complete or not") {
  for (const bool complete : {true, false}) {
    Model model;
    for (int b = 0; b < (complete ? 256 : 128); ++b) {
      const char byte = static_cast<char>(b);
      model.add(ByteAlphabet::get().spell(std::string_view(&byte, 1)));
    }
    model.merge("Ġ", "a");
    model.add("Ġb");
    BpeOptions options;
    options.byte_level = true;
    CHECK(model.encode(" ab", options) == "Ġa|b|");
    CHECK(model.encode("é", options) == (complete ? "Ã|©|" : ""));
    CHECK(model.encode(" b", options) == "Ġ|b|");
    options.ignore_merges = true;
    CHECK(model.encode(" b", options) == "Ġb|");
  }
}

TEST_CASE("merges that involve the unknown token see the text whole") {
  Model model = letters("ab");
  model.add("<unk>");
  model.merge("<unk>", "b");
  BpeOptions options;
  options.unk = model.vocabulary.find("<unk>");
  CHECK(model.encode("aéb", options) == "a|<unk>b|");
}

TEST_CASE("a token that is only an added token is not part of the model") {
  Model model = letters("ab");
  model.vocabulary.add("é", 10, false);
  model.vocabulary.add("🙂", 11, false);
  CHECK(model.encode("aé🙂b") == "a|b|");
}

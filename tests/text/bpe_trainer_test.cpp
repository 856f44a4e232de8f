// Training of a byte-level BPE vocabulary: merges against a trainer that counts everything again, and the file it
// writes against the library's own reader.

#include "perft/text/bpe_trainer.hpp"

#include <catch2/catch.hpp>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "perft/core/rng.hpp"
#include "text/fixture.hpp"

using namespace perft;

namespace {

using Merges = std::vector<std::pair<std::string, std::string>>;

Merges spelled(const TrainedBpe& bpe) {
  Merges merges;
  for (const BpeRule& rule : bpe.merges) {
    merges.emplace_back(bpe.tokens.at(static_cast<std::size_t>(rule.left)),
                        bpe.tokens.at(static_cast<std::size_t>(rule.right)));
  }
  return merges;
}

/// Alg. 1 of Sennrich et al. to the letter: every merge counts all pairs of all words again.
TrainedBpe naive(const std::vector<std::string>& texts, std::size_t vocab_size, std::int64_t min_count) {
  TrainedBpe bpe = BpeTrainer().train(kLeastTrainedVocabulary);  // special tokens and bytes
  const auto id = [&](const std::string& token) {
    return static_cast<std::int32_t>(std::find(bpe.tokens.begin(), bpe.tokens.end(), token) - bpe.tokens.begin());
  };
  std::vector<std::vector<std::int32_t>> words;
  for (const std::string& text : texts) {
    scan_gpt2(text, [&](std::string_view word) {
      std::vector<std::int32_t> ids;
      for (const char c : word) {
        ids.push_back(id(ByteAlphabet::get().spell(std::string_view(&c, 1))));
      }
      words.push_back(ids);
    });
  }
  while (bpe.tokens.size() < vocab_size) {
    std::map<std::pair<std::int32_t, std::int32_t>, std::int64_t> counts;
    for (const auto& word : words) {
      for (std::size_t i = 1; i < word.size(); ++i) {
        ++counts[{word[i - 1], word[i]}];
      }
    }
    // The map's order is that of the ids, so the first of the largest is the one that ties go to.
    const auto best = std::max_element(counts.begin(), counts.end(),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
    if (best == counts.end() || best->second < min_count) {
      break;
    }
    const auto [left, right] = best->first;
    const std::string token = bpe.tokens[static_cast<std::size_t>(left)] + bpe.tokens[static_cast<std::size_t>(right)];
    const std::int32_t product = id(token);
    if (product == static_cast<std::int32_t>(bpe.tokens.size())) {
      bpe.tokens.push_back(token);
    }
    bpe.merges.push_back({left, right, product});
    for (auto& word : words) {
      for (std::size_t i = 0; i + 1 < word.size(); ++i) {
        if (word[i] == left && word[i + 1] == right) {
          word[i] = product;
          word.erase(word.begin() + static_cast<std::ptrdiff_t>(i) + 1);
        }
      }
    }
  }
  return bpe;
}

TrainedBpe trained(const std::vector<std::string>& texts, std::int32_t vocab_size, std::int64_t min_count = 2) {
  BpeTrainer trainer;
  for (const std::string& text : texts) {
    trainer.add(text);
  }
  return trainer.train(vocab_size, min_count);
}

Tokenizer loaded(const TrainedBpe& bpe) {
  const io_test::TempFolder folder;
  return Tokenizer::load(folder.write("tokenizer.json", tokenizer_json(bpe).dump(1)));
}

/// Words over few letters: many ties and overlaps ("aaa").
std::vector<std::string> random_texts(std::uint64_t seed, int letters) {
  PhiloxStream random(seed);
  std::vector<std::string> texts;
  const std::uint32_t length = letters == 1 ? 20 : 5;  // of a word; long runs of one letter merge in many ways
  for (int t = 0; t < 12; ++t) {
    std::string text;
    for (int i = 0; i < 100; ++i) {
      text += random.below(length) == 0
                  ? ' '
                  : static_cast<char>('a' + static_cast<int>(random.below(static_cast<std::uint32_t>(letters))));
    }
    texts.push_back(text);
  }
  return texts;
}

}  // namespace

TEST_CASE("bpe_trainer: merges of a corpus worked out by hand") {
  // Words: "low" 2, " low" 1, "lower" 1: l·o and o·w occur 4 times each; ids are in the order of bytes, so l·o is
  // first.
  const TrainedBpe bpe = trained({"low low", "low", "lower"}, 300);
  CHECK(spelled(bpe) == Merges{{"l", "o"}, {"lo", "w"}});
  CHECK(bpe.tokens.size() == 260);
  CHECK(bpe.tokens[0] == "<|endoftext|>");
  CHECK(bpe.tokens[1] == "<|padding|>");
  CHECK(bpe.tokens[2] == "!");
  CHECK(bpe.tokens[258] == "lo");
  CHECK(bpe.tokens[259] == "low");
}

TEST_CASE("bpe_trainer: the merges of a trainer that counts again after every merge") {
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    for (const int letters : {1, 2, 3, 7}) {
      for (const std::int64_t min_count : {1, 2, 5}) {
        const std::vector<std::string> texts = random_texts(seed, letters);
        INFO("seed " << seed << ", " << letters << " letters, pairs of at least " << min_count);
        const TrainedBpe fast = trained(texts, 330, min_count);
        const TrainedBpe slow = naive(texts, 330, min_count);
        CHECK(spelled(fast) == spelled(slow));
        CHECK(fast.tokens == slow.tokens);
      }
    }
  }
}

TEST_CASE("bpe_trainer: the order of the texts does not matter, and training twice gives the same file") {
  std::vector<std::string> texts = random_texts(3, 5);
  BpeTrainer trainer;
  for (const std::string& text : texts) {
    trainer.add(text);
  }
  const std::string once = tokenizer_json(trainer.train(320)).dump();
  CHECK(tokenizer_json(trainer.train(320)).dump() == once);
  std::reverse(texts.begin(), texts.end());
  CHECK(tokenizer_json(trained(texts, 320)).dump() == once);
}

TEST_CASE("bpe_trainer: the vocabulary has the size asked for, and stops short where nothing repeats") {
  CHECK(trained(random_texts(1, 7), 300).tokens.size() == 300);
  CHECK(trained(random_texts(1, 7), 258).merges.empty());
  CHECK(trained({"abc"}, 300).tokens.size() == 258);     // every pair once, 2 are asked for
  CHECK(trained({"abc"}, 300, 1).tokens.size() == 260);  // ab, abc
  CHECK(trained({}, 300).tokens.size() == 258);
  CHECK(trained({""}, 300).tokens.size() == 258);
}

TEST_CASE("bpe_trainer: merges do not cross words, and words are those of the tokenizer's NFC form") {
  for (const std::string& token : trained({"ab ab ab ab", "don't don't", "x1 x1 x1"}, 400, 1).tokens) {
    CHECK(token != "bĠ");
    CHECK(token != "x1");
    CHECK(token.find("n't") == std::string::npos);
  }
  // e and a combining acute are one character in NFC: its two bytes are a pair, e and the accent's first byte are not.
  const TrainedBpe accents = trained({"e\xCC\x81 e\xCC\x81 e\xCC\x81"}, 400);
  REQUIRE(!accents.merges.empty());
  CHECK(spelled(accents)[0] ==
        Merges::value_type{ByteAlphabet::get().spell("\xC3"), ByteAlphabet::get().spell("\xA9")});
}

TEST_CASE("bpe_trainer: its tokenizer.json is read, and every text comes back") {
  const Tokenizer tokenizer = loaded(trained({"the cat sat on the mat, the cat sat", "na\xC3\xAFve caf\xC3\xA9"}, 300));
  const std::vector<std::int32_t> ids = tokenizer.encode("the cat");
  CHECK(ids.size() < 7);
  CHECK(tokenizer.id("<|endoftext|>") == kTrainedEosId);
  CHECK(tokenizer.id("<|padding|>") == kTrainedPadId);
  CHECK(tokenizer.is_special(kTrainedEosId));
  CHECK(tokenizer.encode("a<|endoftext|>").back() == kTrainedEosId);
  const std::string texts[] = {"",
                               "the cat",
                               "  two  spaces\n\tand\r\nlines ",
                               "\xE4\xBD\xA0\xE5\xA5\xBD, \xF0\x9F\x98\x80!",
                               std::string("zero \0 byte", 11),
                               "don't we'll I'M 3rd 10\xC2\xB2"};
  for (const std::string& text : texts) {
    CHECK(tokenizer.decode(tokenizer.encode(text)) == text);
  }
  // Characters that NFC leaves alone, drawn from the whole range.
  PhiloxStream random(7);
  for (int i = 0; i < 200; ++i) {
    std::string text;
    for (int c = 0; c < 20; ++c) {
      append_utf8(text, static_cast<char32_t>(0x4E00 + random.below(0x5000)));
      append_utf8(text, static_cast<char32_t>(1 + random.below(0x7E)));
    }
    CHECK(tokenizer.decode(tokenizer.encode(text)) == text);
  }
}

TEST_CASE("bpe_trainer: what it refuses") {
  BpeTrainer trainer;
  CHECK(io_test::message_of<ValueError>([&] { trainer.train(257); }) ==
        "bpe_trainer: a vocabulary of 257 tokens, expected at least 258 (256 bytes and 2 special tokens)");
  CHECK(io_test::message_of<ValueError>([&] { trainer.train(300, 0); }) ==
        "bpe_trainer: pairs of 0 occurrences, expected at least 1");
  CHECK(io_test::message_of<ValueError>([&] { trainer.add("ab\xFF"); }) ==
        "bpe_trainer: text is not valid UTF-8 at byte 2; convert it first");
}

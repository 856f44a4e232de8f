#pragma once
// Training of a byte-level BPE vocabulary from text, and its tokenizer.json in the shape of OLMoE's.

#include <algorithm>      // std::sort
#include <cstddef>        // std::size_t
#include <cstdint>        // fixed-width integers
#include <queue>          // the next pair
#include <string>         // tokens
#include <string_view>    // texts
#include <unordered_map>  // pair counts
#include <utility>        // std::pair
#include <vector>         // words

#include "perft/core/error.hpp"
#include "perft/io/json.hpp"
#include "perft/text/json_node.hpp"
#include "perft/text/merge_table.hpp"
#include "perft/text/normalize.hpp"
#include "perft/text/pretokenize.hpp"
#include "perft/text/unicode.hpp"

namespace perft::inline PERFT_ABI {

/// Ids of the two special tokens of a trained vocabulary. Padding has the id that OLMoE's has.
inline constexpr std::int32_t kTrainedEosId = 0;
inline constexpr std::int32_t kTrainedPadId = 1;
inline constexpr std::string_view kTrainedSpecialTokens[] = {"<|endoftext|>", "<|padding|>"};

/// The smallest vocabulary: special tokens and bytes.
inline constexpr std::int32_t kLeastTrainedVocabulary =
    256 + static_cast<std::int32_t>(std::size(kTrainedSpecialTokens));

/// What training gives: id -> token as spelled in the ByteAlphabet (special tokens first, then the bytes by the code
/// point of their spelling, then the products of merges as they were found), and the merges, first rank first.
struct TrainedBpe {
  std::vector<std::string> tokens;
  std::vector<BpeRule> merges;
};

/// Counts the words of texts, then merges the most frequent pair of neighbouring tokens until the vocabulary is full.
/// Words are those of the GPT-2 pattern over the NFC form, as OLMoE's tokenizer cuts them; merges do not cross them.
/// Of pairs that are equally frequent the one with the lower left id, then the lower right id, is merged: the result
/// depends on the texts alone, not on their order. Counts are kept per pair and corrected in the words that a merge
/// touches. Source: Sennrich et al. 2016, alg. 1; Hugging Face tokenizers, BpeTrainer, whose merges it gives.
class BpeTrainer {
 public:
  BpeTrainer() : normalizer_(Normalizer::parse(JsonNode(nfc(), "bpe_trainer", "normalizer"))) {}

  /// Counts the words of `text`. Throws ValueError if it is not valid UTF-8, with the byte.
  void add(std::string_view text) {
    const std::size_t invalid = find_invalid_utf8(text);
    check<ValueError>(invalid == std::string_view::npos, "bpe_trainer: text is not valid UTF-8 at byte ", invalid,
                      "; convert it first");
    std::string storage;
    scan_gpt2(normalizer_.apply(text, storage), [&](std::string_view word) { ++counts_[std::string(word)]; });
  }

  /// Merges until there are `vocab_size` tokens or no pair occurs `min_count` times. Throws ValueError if vocab_size is
  /// below kLeastTrainedVocabulary or min_count below 1. O(bytes of distinct words · merges a word takes part in).
  TrainedBpe train(std::int32_t vocab_size, std::int64_t min_count = 2) const {
    check<ValueError>(vocab_size >= kLeastTrainedVocabulary, "bpe_trainer: a vocabulary of ", vocab_size,
                      " tokens, expected at least ", kLeastTrainedVocabulary, " (256 bytes and ",
                      std::size(kTrainedSpecialTokens), " special tokens)");
    check<ValueError>(min_count >= 1, "bpe_trainer: pairs of ", min_count, " occurrences, expected at least 1");
    return Run(counts_).train(vocab_size, min_count);
  }

 private:
  using Pair = std::uint64_t;  // left id << 32 | right id: its order is that of the ids
  using WordCounts = std::unordered_map<std::string, std::int64_t>;

  struct Word {
    std::vector<std::int32_t> ids;
    std::int64_t count;
  };

  struct PairCount {
    std::int64_t count = 0;
    std::vector<std::size_t> words;  // every word that has the pair, and perhaps some that no longer do
  };

  struct Candidate {
    std::int64_t count;
    Pair pair;

    bool operator<(const Candidate& other) const {
      return count != other.count ? count < other.count : pair > other.pair;
    }
  };

  static Pair pair_of(std::int32_t left, std::int32_t right) {
    return static_cast<Pair>(static_cast<std::uint32_t>(left)) << 32U | static_cast<std::uint32_t>(right);
  }

  static const Json& nfc() {
    static const Json node = {{"type", "NFC"}};
    return node;
  }

  /// One training: words as ids, pair counts, and the queue, whose entries may name a count that has since fallen.
  class Run {
   public:
    explicit Run(const WordCounts& counts) {
      for (const std::string_view token : kTrainedSpecialTokens) {
        result_.tokens.emplace_back(token);
      }
      const ByteAlphabet& alphabet = ByteAlphabet::get();
      std::vector<std::pair<char32_t, unsigned char>> bytes;
      for (unsigned b = 0; b < 256; ++b) {
        const auto byte = static_cast<unsigned char>(b);
        bytes.emplace_back(alphabet.character(byte), byte);
      }
      std::sort(bytes.begin(), bytes.end());
      std::int32_t id_of_byte[256];
      for (const auto& [character, byte] : bytes) {
        id_of_byte[byte] = static_cast<std::int32_t>(result_.tokens.size());
        std::string token;
        append_utf8(token, character);
        result_.tokens.push_back(std::move(token));
      }
      for (std::size_t id = 0; id < result_.tokens.size(); ++id) {
        ids_.emplace(result_.tokens[id], static_cast<std::int32_t>(id));
      }
      for (const auto& [text, count] : counts) {
        Word word{{}, count};
        for (const char c : text) {
          word.ids.push_back(id_of_byte[static_cast<unsigned char>(c)]);
        }
        words_.push_back(std::move(word));
      }
    }

    TrainedBpe train(std::int32_t vocab_size, std::int64_t min_count) {
      for (std::size_t w = 0; w < words_.size(); ++w) {
        count_pairs(w, 1);
        list_pairs(w, -1);
      }
      for (const auto& [pair, info] : pairs_) {
        queue_.push({info.count, pair});
      }
      while (static_cast<std::int32_t>(result_.tokens.size()) < vocab_size && !queue_.empty()) {
        const Candidate top = queue_.top();
        queue_.pop();
        const std::int64_t count = pairs_.at(top.pair).count;
        if (count < top.count) {
          queue_.push({count, top.pair});
        } else if (count < min_count) {
          break;
        } else {
          merge(top.pair);
        }
      }
      return std::move(result_);
    }

   private:
    void count_pairs(std::size_t w, std::int64_t sign) {
      const Word& word = words_[w];
      for (std::size_t i = 1; i < word.ids.size(); ++i) {
        pairs_[pair_of(word.ids[i - 1], word.ids[i])].count += sign * word.count;
      }
    }

    /// Enters word `w` under its pairs that `product` is part of (all pairs if that is -1), and returns those.
    std::vector<Pair> list_pairs(std::size_t w, std::int32_t product) {
      std::vector<Pair> listed;
      const Word& word = words_[w];
      for (std::size_t i = 1; i < word.ids.size(); ++i) {
        if (product >= 0 && word.ids[i - 1] != product && word.ids[i] != product) {
          continue;
        }
        const Pair pair = pair_of(word.ids[i - 1], word.ids[i]);
        std::vector<std::size_t>& words = pairs_[pair].words;
        if (words.empty() || words.back() != w) {
          words.push_back(w);
        }
        listed.push_back(pair);
      }
      return listed;
    }

    void merge(Pair pair) {
      const auto left = static_cast<std::int32_t>(pair >> 32U);
      const auto right = static_cast<std::int32_t>(pair & 0xFFFFFFFFU);
      const std::string token =
          result_.tokens[static_cast<std::size_t>(left)] + result_.tokens[static_cast<std::size_t>(right)];
      // Should a second pair spell a token that is there, it is a merge without a new id: a token stands once.
      const auto [entry, is_new] = ids_.emplace(token, static_cast<std::int32_t>(result_.tokens.size()));
      const std::int32_t product = entry->second;
      if (is_new) {
        result_.tokens.push_back(token);
      }
      result_.merges.push_back({left, right, product});

      std::vector<Pair> grown;
      const std::vector<std::size_t> touched = std::move(pairs_.at(pair).words);
      pairs_.at(pair).words.clear();
      for (const std::size_t w : touched) {
        std::vector<std::int32_t> merged = merge_in(words_[w].ids, left, right, product);
        if (merged.size() == words_[w].ids.size()) {
          continue;
        }
        count_pairs(w, -1);
        words_[w].ids = std::move(merged);
        count_pairs(w, 1);
        const std::vector<Pair> listed = list_pairs(w, product);
        grown.insert(grown.end(), listed.begin(), listed.end());
      }
      std::sort(grown.begin(), grown.end());
      grown.erase(std::unique(grown.begin(), grown.end()), grown.end());
      for (const Pair changed : grown) {
        queue_.push({pairs_.at(changed).count, changed});
      }
    }

    static std::vector<std::int32_t> merge_in(const std::vector<std::int32_t>& ids, std::int32_t left,
                                              std::int32_t right, std::int32_t product) {
      std::vector<std::int32_t> out;
      out.reserve(ids.size());
      for (std::size_t i = 0; i < ids.size(); ++i) {
        const bool here = i + 1 < ids.size() && ids[i] == left && ids[i + 1] == right;
        out.push_back(here ? product : ids[i]);
        i += here ? 1 : 0;
      }
      return out;
    }

    TrainedBpe result_;
    std::unordered_map<std::string, std::int32_t> ids_;
    std::vector<Word> words_;
    std::unordered_map<Pair, PairCount> pairs_;
    std::priority_queue<Candidate> queue_;
  };

  Normalizer normalizer_;
  WordCounts counts_;
};

/// The tokenizer.json of a trained vocabulary: NFC, ByteLevel pre-tokeniser, post-processor and decoder, as OLMoE's.
inline OrderedJson tokenizer_json(const TrainedBpe& bpe) {
  OrderedJson added = OrderedJson::array();
  for (std::size_t id = 0; id < std::size(kTrainedSpecialTokens); ++id) {
    added.push_back({{"id", id},
                     {"content", bpe.tokens[id]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const OrderedJson byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  OrderedJson vocab = OrderedJson::object();
  for (std::size_t id = 0; id < bpe.tokens.size(); ++id) {  // operator[] would search all keys before
    vocab.get_ref<OrderedJson::object_t&>().emplace_back(bpe.tokens[id], id);
  }
  OrderedJson merges = OrderedJson::array();
  for (const BpeRule& rule : bpe.merges) {
    merges.push_back(bpe.tokens[static_cast<std::size_t>(rule.left)] + " " +
                     bpe.tokens[static_cast<std::size_t>(rule.right)]);
  }
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", std::move(added)},
          {"normalizer", {{"type", "NFC"}}},
          {"pre_tokenizer", byte_level},
          {"post_processor", byte_level},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"vocab", std::move(vocab)},
            {"merges", std::move(merges)}}}};
}

}  // namespace perft::inline PERFT_ABI

#pragma once
// Byte-pair encoding: a word becomes its characters' tokens, then the pair of lowest rank is merged until none is left.

#include <algorithm>    // heap operations, searches
#include <array>        // byte tables, short words
#include <cstddef>      // std::size_t
#include <cstdint>      // fixed-width integers
#include <span>         // ids
#include <string>       // spelled words
#include <string_view>  // words
#include <vector>       // symbols

#include "perft/text/merge_table.hpp"
#include "perft/text/pretokenize.hpp"
#include "perft/text/seams.hpp"
#include "perft/text/unicode.hpp"
#include "perft/text/vocabulary.hpp"
#include "perft/text/word_cache.hpp"

namespace perft::inline PERFT_ABI {

/// The switches of "model" that perft implements.
struct BpeOptions {
  std::int32_t unk = -1;       // id for a character outside the vocabulary, -1: such characters are left out
  bool fuse_unk = false;       // one unk for a run of them
  bool byte_fallback = false;  // their UTF-8 bytes as <0xNN> tokens, if the vocabulary has those
  bool ignore_merges = false;  // a word that is itself a token is that token
  bool byte_level = false;     // words are bytes, spelled in the ByteAlphabet
};

/// What one encoding thread needs: memory that is reused, and its word cache.
struct BpeScratch {
  struct Symbol {
    std::int32_t id;
    std::int32_t previous;
    std::int32_t next;  // kMerged once it is part of the symbol before it
  };

  struct Candidate {
    std::uint32_t rank;
    std::int32_t position;
    std::int32_t product;
  };

  WordCache cache;
  std::vector<std::int32_t> ids;
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
};

/// A BPE model. O(n log n) for a word of n characters, however long. Source: Hugging Face tokenizers, models/bpe, whose
/// result (lowest rank first, leftmost among equals) and treatment of unknown characters it repeats.
class Bpe {
 public:
  Bpe() = default;

  /// A rule's rank is its index. `vocabulary` is not kept; encode() must be given the same one.
  Bpe(const Vocabulary& vocabulary, std::span<const BpeRule> rules, BpeOptions options)
      : merges_(rules), options_(options), characters_(0x10000, -1) {
    static constexpr std::string_view kDigits = "0123456789ABCDEF";
    bytes_complete_ = true;
    for (std::size_t b = 0; b < 256; ++b) {
      const std::string name = {'<', '0', 'x', kDigits[b >> 4], kDigits[b & 15], '>'};
      fallback_[b] = vocabulary.find_in_model(name);
      const char byte = static_cast<char>(static_cast<unsigned char>(b));
      bytes_[b] = vocabulary.find_in_model(ByteAlphabet::get().spell(std::string_view(&byte, 1)));
      bytes_complete_ = bytes_complete_ && bytes_[b] >= 0;
    }
    for (std::int32_t id = 0; id < vocabulary.size(); ++id) {
      const std::string& token = vocabulary.token(id);
      if (!token.empty() && token.size() < 4 && utf8_length(token[0]) == token.size() &&
          vocabulary.find_in_model(token) == id) {
        characters_[utf8_decode(token, 0)] = id;
      }
    }
    // A symbol that is not spelled as the text is must not be merged, or a seam in the text could be crossed.
    const auto foreign = [&](std::int32_t id) {
      return id == options.unk || std::find(fallback_.begin(), fallback_.end(), id) != fallback_.end();
    };
    const bool plain = std::none_of(rules.begin(), rules.end(),
                                    [&](const BpeRule& rule) { return foreign(rule.left) || foreign(rule.right); });
    // Nor may a character be left out, which would bring its neighbours together.
    const bool all_kept = options.unk >= 0 || (options.byte_fallback &&
                                               std::find(fallback_.begin(), fallback_.end(), -1) == fallback_.end());
    has_seams_ = !options.byte_level && plain && all_kept;
    if (has_seams_) {
      seams_ = Seams(vocabulary, rules);
    }
  }

  /// Appends the ids of `word` (not empty): raw bytes if byte_level, else valid UTF-8.
  void encode(const Vocabulary& vocabulary, std::string_view word, BpeScratch& scratch,
              std::vector<std::int32_t>& out) const {
    if (!has_seams_) {
      encode_word(vocabulary, word, options_.ignore_merges, scratch, out);
      return;
    }
    if (options_.ignore_merges) {
      if (const std::int32_t id = vocabulary.find_in_model(word); id >= 0) {
        out.push_back(id);
        return;
      }
    }
    seams_.split(word, [&](std::string_view part) { encode_word(vocabulary, part, false, scratch, out); });
  }

 private:
  static constexpr std::size_t kShort = 24;  // up to here a scan for the lowest rank beats a heap (measured)
  static constexpr std::int32_t kMerged = -2;

  void encode_word(const Vocabulary& vocabulary, std::string_view word, bool whole, BpeScratch& scratch,
                   std::vector<std::int32_t>& out) const {
    if (const auto cached = scratch.cache.find(word); !cached.empty()) {
      out.insert(out.end(), cached.begin(), cached.end());
      return;
    }
    const std::size_t first = out.size();
    const std::int32_t id = !whole                ? -1
                            : options_.byte_level ? vocabulary.find_in_model(ByteAlphabet::get().spell(word))
                                                  : vocabulary.find_in_model(word);
    if (id >= 0) {
      out.push_back(id);
    } else {
      symbols_of(vocabulary, word, scratch.ids);
      scratch.ids.size() <= kShort ? merge_short(scratch.ids, out) : merge_long(scratch, out);
    }
    scratch.cache.put(word, std::span(out).subspan(first));
  }

  void symbols_of(const Vocabulary& vocabulary, std::string_view word, std::vector<std::int32_t>& ids) const {
    ids.clear();
    if (options_.byte_level && bytes_complete_) {
      for (const char c : word) {
        ids.push_back(bytes_[static_cast<unsigned char>(c)]);
      }
      return;
    }
    std::string spelled;
    if (options_.byte_level) {
      spelled = ByteAlphabet::get().spell(word);
      word = spelled;
    }
    bool unknown = false;  // a fused unk is pending; it is written before the next known character, as in the reference
    for (std::size_t at = 0; at < word.size(); at += utf8_length(word[at])) {
      const std::string_view character = word.substr(at, utf8_length(word[at]));
      const std::int32_t id =
          character.size() < 4 ? characters_[utf8_decode(character, 0)] : vocabulary.find_in_model(character);
      if (id >= 0) {
        if (unknown) {
          ids.push_back(options_.unk);
          unknown = false;
        }
        ids.push_back(id);
        continue;
      }
      if (options_.byte_fallback && append_bytes(character, ids)) {
        continue;
      }
      if (options_.unk >= 0) {
        if (unknown && !options_.fuse_unk) {
          ids.push_back(options_.unk);
        }
        unknown = true;
      }
    }
    if (unknown) {
      ids.push_back(options_.unk);
    }
  }

  bool append_bytes(std::string_view character, std::vector<std::int32_t>& ids) const {
    for (const char c : character) {
      if (fallback_[static_cast<unsigned char>(c)] < 0) {
        return false;
      }
    }
    for (const char c : character) {
      ids.push_back(fallback_[static_cast<unsigned char>(c)]);
    }
    return true;
  }

  void merge_short(std::vector<std::int32_t>& ids, std::vector<std::int32_t>& out) const {
    std::array<BpeMerge, kShort> merges;  // of ids[i] with ids[i + 1]
    std::size_t count = ids.size();
    for (std::size_t i = 0; i + 1 < count; ++i) {
      merges[i] = merges_.find(ids[i], ids[i + 1]);
    }
    while (count > 1) {
      std::size_t best = 0;
      for (std::size_t i = 1; i + 1 < count; ++i) {
        best = merges[i].rank < merges[best].rank ? i : best;
      }
      if (merges[best].rank == MergeTable::kNone) {
        break;
      }
      ids[best] = merges[best].product;
      --count;
      for (std::size_t i = best + 1; i < count; ++i) {
        ids[i] = ids[i + 1];
        merges[i - 1] = merges[i];
      }
      if (best + 1 < count) {
        merges[best] = merges_.find(ids[best], ids[best + 1]);
      }
      if (best > 0) {
        merges[best - 1] = merges_.find(ids[best - 1], ids[best]);
      }
    }
    out.insert(out.end(), ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count));
  }

  void merge_long(BpeScratch& scratch, std::vector<std::int32_t>& out) const {
    auto& symbols = scratch.symbols;
    auto& heap = scratch.heap;
    const auto later = [](const BpeScratch::Candidate& a, const BpeScratch::Candidate& b) {
      return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
    };
    const auto at = [&symbols](std::int32_t i) -> BpeScratch::Symbol& { return symbols[static_cast<std::size_t>(i)]; };
    const auto count = static_cast<std::int32_t>(scratch.ids.size());
    symbols.resize(scratch.ids.size());
    heap.clear();
    for (std::int32_t i = 0; i < count; ++i) {
      at(i) = {scratch.ids[static_cast<std::size_t>(i)], i - 1, i + 1 < count ? i + 1 : -1};
    }
    const auto propose = [&](std::int32_t left) {
      const BpeMerge merge = merges_.find(at(left).id, at(at(left).next).id);
      if (merge.rank != MergeTable::kNone) {
        heap.push_back({merge.rank, left, merge.product});
        return true;
      }
      return false;
    };
    for (std::int32_t i = 0; i + 1 < count; ++i) {
      propose(i);
    }
    std::make_heap(heap.begin(), heap.end(), later);
    while (!heap.empty()) {
      std::pop_heap(heap.begin(), heap.end(), later);
      const BpeScratch::Candidate top = heap.back();
      heap.pop_back();
      BpeScratch::Symbol& left = at(top.position);
      if (left.next < 0) {
        continue;  // merged away, or the last symbol
      }
      const std::int32_t right = left.next;
      if (merges_.find(left.id, at(right).id).product != top.product) {
        continue;  // one of the two has grown since
      }
      left.id = top.product;
      left.next = at(right).next;
      at(right).next = kMerged;
      if (left.next >= 0) {
        at(left.next).previous = top.position;
        if (propose(top.position)) {
          std::push_heap(heap.begin(), heap.end(), later);
        }
      }
      if (left.previous >= 0 && propose(left.previous)) {
        std::push_heap(heap.begin(), heap.end(), later);
      }
    }
    for (std::int32_t i = 0; i >= 0; i = at(i).next) {
      out.push_back(at(i).id);
    }
  }

  MergeTable merges_;
  BpeOptions options_;
  std::array<std::int32_t, 256> bytes_{};     // token of a byte, spelled in the ByteAlphabet
  std::array<std::int32_t, 256> fallback_{};  // token <0xNN>
  std::vector<std::int32_t> characters_;      // token of a character below U+10000
  bool bytes_complete_ = false;
  bool has_seams_ = false;
  Seams seams_;
};

}  // namespace perft::inline PERFT_ABI

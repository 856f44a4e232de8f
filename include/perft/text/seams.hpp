#pragma once
// Where a long text can be cut without changing its merges: between characters that no merge ever joins.

#include <array>        // the table
#include <cstddef>      // std::size_t
#include <cstdint>      // std::uint8_t
#include <span>         // rules
#include <string_view>  // texts

#include "perft/text/merge_table.hpp"
#include "perft/text/unicode.hpp"
#include "perft/text/vocabulary.hpp"

namespace perft::inline PERFT_ABI {

/// Models without a pre-tokeniser (Mixtral, Llama) see a whole text as one word, which no cache can hold. But a merge
/// only makes the tokens it lists: if none of them has c before d, no merge crosses a seam c|d, and the two sides are
/// merged independently. Letters, digits, punctuation and "▁" meet in such seams, so a text falls into words and the
/// result stays exact. Characters count as ASCII, "▁" or any other.
class Seams {
 public:
  /// No seams: a word stays whole.
  Seams() { joined_.fill(1); }

  /// Looks for pairs of neighbours in the products of `rules`. A seam needs a right side that is itself a token, so
  /// that no run of unknown characters spans it.
  Seams(const Vocabulary& vocabulary, std::span<const BpeRule> rules) {
    joined_.fill(0);
    for (const BpeRule& rule : rules) {
      const std::string_view token = vocabulary.token(rule.product);
      for_pairs(token, [this](std::size_t, std::size_t pair) { joined_[pair] = 1; });
    }
    for (std::size_t right = 0; right < kClasses; ++right) {
      const char byte = static_cast<char>(right);
      const bool known = right < kSpace    ? vocabulary.find_in_model(std::string_view(&byte, 1)) >= 0
                         : right == kSpace ? vocabulary.find_in_model(kSpaceText) >= 0
                                           : false;
      for (std::size_t left = 0; left < kClasses && !known; ++left) {
        joined_[left * kClasses + right] = 1;
      }
    }
  }

  /// Calls part(string_view) for the pieces of valid UTF-8 `text` between its seams.
  template <class Part>
  void split(std::string_view text, Part&& part) const {
    std::size_t begin = 0;
    for_pairs(text, [&](std::size_t at, std::size_t pair) {
      if (joined_[pair] == 0) {
        part(text.substr(begin, at - begin));
        begin = at;
      }
    });
    part(text.substr(begin));
  }

 private:
  static constexpr std::string_view kSpaceText = "\xE2\x96\x81";  // ▁ U+2581
  static constexpr std::size_t kSpace = 128;
  static constexpr std::size_t kOther = 129;
  static constexpr std::size_t kClasses = 130;

  /// Calls pair(offset of the right character, index into joined_) for all neighbours.
  template <class Pair>
  static void for_pairs(std::string_view text, Pair&& pair) {
    std::size_t left = kClasses;
    for (std::size_t at = 0; at < text.size();) {
      const auto byte = static_cast<unsigned char>(text[at]);
      std::size_t right = byte;
      std::size_t length = 1;
      if (byte >= 0x80) {
        right = text.substr(at, kSpaceText.size()) == kSpaceText ? kSpace : kOther;
        length = utf8_length(text[at]);
      }
      if (left != kClasses) {
        pair(at, left * kClasses + right);
      }
      left = right;
      at += length;
    }
  }

  std::array<std::uint8_t, kClasses * kClasses> joined_;  // 1: no seam between these classes
};

}  // namespace perft::inline PERFT_ABI

#pragma once
// Added tokens: fixed strings that are cut out of a text, leftmost-longest, before the model sees it.

#include <algorithm>    // std::max
#include <array>        // first-byte table
#include <cstddef>      // std::size_t
#include <cstdint>      // fixed-width integers
#include <string>       // contents
#include <string_view>  // texts
#include <vector>       // nodes

#include "perft/text/unicode.hpp"

namespace perft::inline PERFT_ABI {

/// One entry of "added_tokens".
struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  bool single_word = false;  // matches only between characters that are not \w
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // takes the white space after it along
  bool normalized = true;    // looked for in the normalised text, in its own normalised form
  bool special = false;      // left out by decode
};

/// Leftmost-longest search for a set of strings, and the cuts that Hugging Face's AddedVocabulary makes with it.
class AddedTokenMatcher {
 public:
  /// Adds `pattern` (not empty) for `token`; false if the pattern is there already.
  bool add(std::string_view pattern, const AddedToken& token) {
    if (nodes_.empty()) {
      nodes_.emplace_back();
    }
    std::uint32_t node = 0;
    for (const char c : pattern) {
      std::uint32_t next = child(node, c);
      if (next == kNone) {
        next = static_cast<std::uint32_t>(nodes_.size());
        nodes_[node].children.push_back({c, next});
        nodes_.emplace_back();
      }
      node = next;
    }
    if (nodes_[node].token >= 0) {
      return false;
    }
    nodes_[node].token = static_cast<std::int32_t>(tokens_.size());
    tokens_.push_back(token);
    first_[static_cast<unsigned char>(pattern[0])] = child(0, pattern[0]);
    return true;
  }

  /// Calls text_piece(offset, length) and token_piece(id) in the order of valid UTF-8 `text`.
  /// As in the reference, white space taken by rstrip is not taken away from a token that matched inside it.
  template <class TextPiece, class TokenPiece>
  void split(std::string_view text, TextPiece&& text_piece, TokenPiece&& token_piece) const {
    std::size_t covered = 0;
    std::size_t at = nodes_.empty() ? text.size() : 0;
    while (at < text.size()) {
      const std::uint32_t node = first_[static_cast<unsigned char>(text[at])];
      if (node == 0) {
        ++at;
        continue;
      }
      const Match match = longest(text, at, node);
      if (match.token < 0) {
        ++at;
        continue;
      }
      const AddedToken& token = tokens_[static_cast<std::size_t>(match.token)];
      std::size_t begin = at;
      std::size_t end = at + match.length;
      at = end;
      if (token.single_word && (word_before(text, begin) || word_after(text, end))) {
        continue;
      }
      if (token.lstrip) {
        begin = std::max(spaces_before(text, begin), covered);
      }
      if (token.rstrip) {
        end = spaces_after(text, end);
      }
      if (covered < begin) {
        text_piece(covered, begin - covered);
      }
      token_piece(token.id);
      covered = end;
    }
    if (covered < text.size()) {
      text_piece(covered, text.size() - covered);
    }
  }

 private:
  static constexpr std::uint32_t kNone = 0;  // the root is nobody's child

  struct Child {
    char byte;
    std::uint32_t node;
  };

  struct Node {
    std::vector<Child> children;
    std::int32_t token = -1;
  };

  struct Match {
    std::int32_t token;
    std::size_t length;
  };

  std::uint32_t child(std::uint32_t node, char byte) const {
    for (const Child& c : nodes_[node].children) {
      if (c.byte == byte) {
        return c.node;
      }
    }
    return kNone;
  }

  Match longest(std::string_view text, std::size_t at, std::uint32_t node) const {
    Match best{nodes_[node].token, 1};
    for (std::size_t i = at + 1; i < text.size(); ++i) {
      node = child(node, text[i]);
      if (node == kNone) {
        break;
      }
      if (nodes_[node].token >= 0) {
        best = {nodes_[node].token, i + 1 - at};
      }
    }
    return best;
  }

  static bool has_class(std::string_view text, std::size_t at, CharacterClass wanted) {
    return (CharacterClasses::get().at(text, at) & wanted) != 0;
  }

  static bool word_before(std::string_view text, std::size_t at) {
    return at > 0 && has_class(text, previous_character(text, at), kWord);
  }

  static bool word_after(std::string_view text, std::size_t at) {
    return at < text.size() && has_class(text, at, kWord);
  }

  static std::size_t spaces_before(std::string_view text, std::size_t at) {
    while (at > 0 && has_class(text, previous_character(text, at), kSpace)) {
      at = previous_character(text, at);
    }
    return at;
  }

  static std::size_t spaces_after(std::string_view text, std::size_t at) {
    while (at < text.size() && has_class(text, at, kSpace)) {
      at += utf8_length(text[at]);
    }
    return at;
  }

  std::vector<Node> nodes_;
  std::vector<AddedToken> tokens_;
  std::array<std::uint32_t, 256> first_{};  // the root's child for a byte, kNone for most
};

}  // namespace perft::inline PERFT_ABI

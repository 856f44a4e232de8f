#pragma once
// Pre-tokenisers of tokenizer.json: ByteLevel (the GPT-2 pattern, scanned by hand) and Metaspace.

#include <array>        // byte alphabet
#include <cstddef>      // std::size_t
#include <cstdint>      // fixed-width integers
#include <string>       // texts
#include <string_view>  // texts

#include "perft/text/json_node.hpp"
#include "perft/text/normalize.hpp"
#include "perft/text/unicode.hpp"

namespace perft::inline PERFT_ABI {

/// GPT-2's printable stand-in for every byte: itself if it is a printable Latin-1 character, else U+0100 + n.
/// Source: bytes_to_unicode in openai/gpt-2's encoder.py.
class ByteAlphabet {
 public:
  static const ByteAlphabet& get() {
    static const ByteAlphabet alphabet;
    return alphabet;
  }

  char32_t character(unsigned char byte) const { return characters_[byte]; }

  /// The byte that `c` stands for, or -1.
  int byte(char32_t c) const { return c < bytes_.size() ? bytes_[c] : -1; }

  /// Every byte of `bytes` as its character.
  std::string spell(std::string_view bytes) const {
    std::string out;
    out.reserve(2 * bytes.size());
    for (const char b : bytes) {
      append_utf8(out, character(static_cast<unsigned char>(b)));
    }
    return out;
  }

 private:
  ByteAlphabet() {
    bytes_.fill(-1);
    char32_t next = 0x100;
    for (std::size_t b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD);
      characters_[b] = printable ? static_cast<char32_t>(b) : next++;
      bytes_[characters_[b]] = static_cast<std::int16_t>(b);
    }
  }

  std::array<char32_t, 256> characters_{};
  std::array<std::int16_t, 0x144> bytes_{};  // U+0143 stands for the last of the 68 unprintable bytes
};

namespace detail {

/// Length of 's 't 're 've 'm 'll 'd at the apostrophe `at`, or 0.
inline std::size_t contraction_length(std::string_view text, std::size_t at) {
  const char a = at + 1 < text.size() ? text[at + 1] : '\0';
  const char b = at + 2 < text.size() ? text[at + 2] : '\0';
  if (a == 's' || a == 't' || a == 'm' || a == 'd') {
    return 2;
  }
  return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

}  // namespace detail

/// Calls piece(string_view) for each match of GPT-2's pattern in valid UTF-8 `text`; together they are the text:
/// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
template <class Piece>
void scan_gpt2(std::string_view text, Piece&& piece) {
  constexpr unsigned kRun = kLetter | kNumber | kSpace;  // none of the three is the pattern's fourth class
  const CharacterClasses& classes = CharacterClasses::get();
  const std::size_t size = text.size();
  std::size_t at = 0;
  while (at < size) {
    const std::size_t begin = at;
    if (text[at] == '\'') {
      if (const std::size_t length = detail::contraction_length(text, at); length > 0) {
        piece(text.substr(at, length));
        at += length;
        continue;
      }
    }
    if (text[at] == ' ' && at + 1 < size) {
      ++at;
    }
    unsigned run = classes.at(text, at) & kRun;
    if (run != kSpace) {
      do {
        at += utf8_length(text[at]);
      } while (at < size && (classes.at(text, at) & kRun) == run);
      piece(text.substr(begin, at - begin));
      continue;
    }
    at = begin;
    std::size_t last = begin;
    do {
      last = at;
      at += utf8_length(text[at]);
    } while (at < size && (classes.at(text, at) & kRun) == kSpace);
    // \s+(?!\S) gives the last character back where a word follows, if any other is left to it.
    if (at < size && last > begin) {
      at = last;
    }
    piece(text.substr(begin, at - begin));
  }
}

/// The pre-tokeniser of a tokenizer.json: cuts a piece of text into the words that merges do not cross.
class PreTokenizer {
 public:
  PreTokenizer() = default;

  /// Reads the value of "pre_tokenizer". UnsupportedError for a type not named at the top of this file.
  static PreTokenizer parse(const JsonNode& node) {
    PreTokenizer result;
    const std::string& type = node.at("type").string();
    if (type == "Sequence" && node.at("pretokenizers").array_size() == 1) {
      return parse(node.at("pretokenizers")[0]);
    }
    if (type == "ByteLevel") {
      result.kind_ = Kind::kByteLevel;
      result.prefix_space_ = node.at("add_prefix_space").boolean();
      result.split_ = node.boolean_or("use_regex", true);
    } else if (type == "Metaspace") {
      result.parse_metaspace(node);
    } else {
      node.at("type").unsupported("ByteLevel, Metaspace, a Sequence of one of them");
    }
    return result;
  }

  /// Whether words are bytes, to be spelled in the ByteAlphabet before the vocabulary is asked.
  bool byte_level() const { return kind_ == Kind::kByteLevel; }

  /// Calls word(string_view) for every word of `text` (not empty). `at_start` says that it opens the whole text.
  template <class Word>
  void split(std::string_view text, bool at_start, Word&& word) const {
    std::string storage;
    if (kind_ == Kind::kByteLevel) {
      if (prefix_space_ && text[0] != ' ') {
        storage.reserve(text.size() + 1);
        storage.append(" ").append(text);
        text = storage;
      }
      if (split_) {
        scan_gpt2(text, word);
      } else {
        word(text);
      }
    } else if (kind_ == Kind::kMetaspace) {
      const bool starts = text[0] == ' ' || text.substr(0, replacement_.size()) == replacement_;
      if (!starts && (scheme_ == Scheme::kAlways || (scheme_ == Scheme::kFirst && at_start))) {
        storage = replacement_;
      }
      append_replaced(storage, text, " ", replacement_);
      split_ ? split_before_replacement(storage, word) : word(std::string_view(storage));
    } else {
      word(text);
    }
  }

 private:
  enum class Kind : std::uint8_t { kNone, kByteLevel, kMetaspace };
  enum class Scheme : std::uint8_t { kAlways, kFirst, kNever };

  void parse_metaspace(const JsonNode& node) {
    kind_ = Kind::kMetaspace;
    replacement_ = metaspace_replacement(node);
    scheme_ = metaspace_scheme(node);
    split_ = node.boolean_or("split", true);
  }

  template <class Word>
  void split_before_replacement(std::string_view text, Word&& word) const {
    std::size_t begin = 0;
    while (begin < text.size()) {
      std::size_t end = text.find(replacement_, begin + 1);
      end = end == std::string_view::npos ? text.size() : end;
      word(text.substr(begin, end - begin));
      begin = end;
    }
  }

  static Scheme metaspace_scheme(const JsonNode& node) {
    Scheme scheme = Scheme::kAlways;
    const bool given = node.has("prepend_scheme");
    if (given) {
      const std::string& name = node.at("prepend_scheme").string();
      if (name != "always" && name != "first" && name != "never") {
        node.at("prepend_scheme").unsupported("always, first, never");
      }
      scheme = name == "always" ? Scheme::kAlways : name == "first" ? Scheme::kFirst : Scheme::kNever;
    }
    if (!node.boolean_or("add_prefix_space", true)) {
      node.at("add_prefix_space").expect(!given || scheme == Scheme::kNever, "true, or prepend_scheme 'never'");
      scheme = Scheme::kNever;
    }
    return scheme;
  }

 public:
  /// The one character that stands for a space in a Metaspace pre-tokeniser or decoder.
  static std::string metaspace_replacement(const JsonNode& node) {
    const std::string& text = node.at("replacement").string();
    node.at("replacement").expect(!text.empty() && utf8_length(text[0]) == text.size(), "one character");
    return text;
  }

  /// Whether a Metaspace section says that a space is put in front of a text.
  static bool metaspace_prepends(const JsonNode& node) { return metaspace_scheme(node) != Scheme::kNever; }

 private:
  Kind kind_ = Kind::kNone;
  bool prefix_space_ = false;
  bool split_ = true;
  Scheme scheme_ = Scheme::kAlways;
  std::string replacement_;
};

}  // namespace perft::inline PERFT_ABI

#pragma once
// UTF-8 in and out, and the character classes that pre-tokenisation, added tokens and normalisation ask for.

#include <cstddef>      // std::size_t
#include <cstdint>      // fixed-width integers
#include <iterator>     // std::size
#include <string>       // output
#include <string_view>  // input
#include <vector>       // the class table

#include "perft/core/error.hpp"
#include "perft/text/unicode_tables.hpp"

namespace perft::inline PERFT_ABI {

/// One character of a byte sequence: its length, and whether those bytes are a character at all.
struct Utf8Step {
  enum class Kind : std::uint8_t { kCharacter, kInvalid, kIncomplete };

  std::size_t length;
  Kind kind;
};

/// Looks at the bytes from `at` (< size). kInvalid and kIncomplete give the length of the maximal ill-formed part,
/// which is replaced by a single U+FFFD (Unicode 15, section 3.9, table 3-8; Rust's from_utf8_lossy); kIncomplete means
/// that only the end of the text stopped it.
inline Utf8Step utf8_step(std::string_view bytes, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned lead = byte(at);
  if (lead < 0x80) {
    return {1, Utf8Step::Kind::kCharacter};
  }
  if (lead < 0xC2 || lead > 0xF4) {
    return {1, Utf8Step::Kind::kInvalid};
  }
  const std::size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // The second byte's range excludes overlong forms, surrogates and code points over U+10FFFF.
  const unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (std::size_t i = 1; i < length; ++i) {
    if (at + i >= bytes.size()) {
      return {i, Utf8Step::Kind::kIncomplete};
    }
    const unsigned next = byte(at + i);
    if (next < (i == 1 ? low : 0x80U) || next > (i == 1 ? high : 0xBFU)) {
      return {i, Utf8Step::Kind::kInvalid};
    }
  }
  return {length, Utf8Step::Kind::kCharacter};
}

/// Byte offset of the first ill-formed sequence, or npos if `text` is valid UTF-8.
inline std::size_t find_invalid_utf8(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    if (static_cast<unsigned char>(text[at]) < 0x80) {
      ++at;
      continue;
    }
    const Utf8Step step = utf8_step(text, at);
    if (step.kind != Utf8Step::Kind::kCharacter) {
      return at;
    }
    at += step.length;
  }
  return std::string_view::npos;
}

/// Length in bytes of the character whose first byte is `lead`, in valid UTF-8.
inline std::size_t utf8_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

/// The code point that starts at `at` of valid UTF-8.
inline char32_t utf8_decode(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<char32_t>(static_cast<unsigned char>(text[at + i])); };
  switch (utf8_length(text[at])) {
    case 1:
      return byte(0);
    case 2:
      return (byte(0) & 0x1FU) << 6 | (byte(1) & 0x3FU);
    case 3:
      return (byte(0) & 0x0FU) << 12 | (byte(1) & 0x3FU) << 6 | (byte(2) & 0x3FU);
    default:
      return (byte(0) & 0x07U) << 18 | (byte(1) & 0x3FU) << 12 | (byte(2) & 0x3FU) << 6 | (byte(3) & 0x3FU);
  }
}

/// Appends code point `c` (not a surrogate, ≤ U+10FFFF) as UTF-8.
inline void append_utf8(std::string& out, char32_t c) {
  const auto put = [&](char32_t byte) { out.push_back(static_cast<char>(static_cast<unsigned char>(byte))); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0U | c >> 6);
    put(0x80U | (c & 0x3FU));
  } else if (c < 0x10000) {
    put(0xE0U | c >> 12);
    put(0x80U | (c >> 6 & 0x3FU));
    put(0x80U | (c & 0x3FU));
  } else {
    put(0xF0U | c >> 18);
    put(0x80U | (c >> 12 & 0x3FU));
    put(0x80U | (c >> 6 & 0x3FU));
    put(0x80U | (c & 0x3FU));
  }
}

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

/// Bits of `CharacterClasses::of`; the values are those of unicode_tables.hpp.
enum CharacterClass : std::uint8_t { kLetter = 1, kNumber = 2, kSpace = 4, kWord = 8, kNfcActive = 16 };

/// The character classes as one byte per code point: 1.1 MB, filled from the steps on first use (0.3 ms), of which a
/// text touches a few cache lines. A lookup is one load, where a binary search over the steps costs eleven.
class CharacterClasses {
 public:
  static const CharacterClasses& get() {
    static const CharacterClasses classes;
    return classes;
  }

  /// CharacterClass bits of code point `c` (≤ U+10FFFF).
  std::uint8_t of(char32_t c) const { return flags_[c]; }

  /// Bits of the character that starts at `at` of valid UTF-8.
  std::uint8_t at(std::string_view text, std::size_t at) const { return flags_[utf8_decode(text, at)]; }

 private:
  CharacterClasses() : flags_(kCodePoints, 0) {
    constexpr std::size_t steps = std::size(detail::kCharacterSteps);
    for (std::size_t i = 0; i < steps; ++i) {
      const std::size_t end = i + 1 < steps ? detail::kCharacterSteps[i + 1] >> 5 : kCodePoints;
      for (std::size_t c = detail::kCharacterSteps[i] >> 5; c < end; ++c) {
        flags_[c] = static_cast<std::uint8_t>(detail::kCharacterSteps[i] & 31U);
      }
    }
  }

  static constexpr std::size_t kCodePoints = 0x110000;
  std::vector<std::uint8_t> flags_;
};

/// Where the character before `at` (> 0) of valid UTF-8 starts.
inline std::size_t previous_character(std::string_view text, std::size_t at) {
  do {
    --at;
  } while ((static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U);
  return at;
}

}  // namespace perft::inline PERFT_ABI

#pragma once
// Normalisers of tokenizer.json: NFC, Prepend, Replace (of a fixed string) and Sequence.

#include <utf8proc.h>  // canonical decomposition and composition

#include <algorithm>    // canonical order
#include <cstddef>      // std::size_t
#include <cstdint>      // std::uint8_t
#include <string>       // texts
#include <string_view>  // texts
#include <utility>      // std::move
#include <vector>       // steps, code points

#include "perft/text/json_node.hpp"
#include "perft/text/unicode.hpp"

namespace perft::inline PERFT_ABI {

namespace detail {

inline int combining_class(utf8proc_int32_t c) {
  return utf8proc_get_property(c)->combining_class;
}

/// Appends the NFC form of `segment`: an optional starter and the characters after it that NFC may change.
inline void append_nfc_segment(std::string& out, std::string_view segment, std::vector<utf8proc_int32_t>& buffer) {
  constexpr auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  constexpr std::ptrdiff_t longest = 4;  // code points in a full canonical decomposition
  buffer.clear();
  for (std::size_t at = 0; at < segment.size(); at += utf8_length(segment[at])) {
    const auto c = static_cast<utf8proc_int32_t>(utf8_decode(segment, at));
    const std::size_t used = buffer.size();
    buffer.resize(used + longest);
    const utf8proc_ssize_t parts = utf8proc_decompose_char(c, buffer.data() + used, longest, options, nullptr);
    check<ValueError>(parts > 0 && parts <= longest, "normalize: utf8proc cannot decompose code point ", c);
    buffer.resize(used + static_cast<std::size_t>(parts));
  }
  // Marks in canonical order; utf8proc's own sort is quadratic in the length of a run.
  for (auto begin = buffer.begin(); begin != buffer.end();) {
    const auto end = std::find_if(begin, buffer.end(), [](utf8proc_int32_t c) { return combining_class(c) == 0; });
    std::stable_sort(begin, end,
                     [](utf8proc_int32_t a, utf8proc_int32_t b) { return combining_class(a) < combining_class(b); });
    begin = end == buffer.end() ? end : end + 1;
  }
  const auto count = static_cast<utf8proc_ssize_t>(buffer.size());
  const utf8proc_ssize_t composed = utf8proc_normalize_utf32(buffer.data(), count, options);
  check<ValueError>(composed >= 0, "normalize: utf8proc cannot compose ", count, " code points");
  for (utf8proc_ssize_t i = 0; i < composed; ++i) {
    append_utf8(out, static_cast<char32_t>(buffer[static_cast<std::size_t>(i)]));
  }
}

}  // namespace detail

/// Normalization Form C of valid UTF-8. `storage` is used only if the form differs from `text` or may differ.
/// utf8proc only ever sees the runs around characters that NFC may change, and only characters that the reference's NFC
/// (Unicode 9) knows: one assigned later is inert here, whatever the version of utf8proc.
inline std::string_view nfc(std::string_view text, std::string& storage) {
  const CharacterClasses& classes = CharacterClasses::get();
  std::size_t at = 0;
  std::size_t copied = 0;    // text before this is in `storage`
  std::size_t previous = 0;  // start of the last inert character
  bool changed = false;
  std::vector<utf8proc_int32_t> buffer;
  while (at < text.size()) {
    // Below U+0300 (lead byte 0xCC) nothing is active.
    if (static_cast<unsigned char>(text[at]) < 0xCC || (classes.at(text, at) & kNfcActive) == 0) {
      previous = at;
      at += utf8_length(text[at]);
      continue;
    }
    std::size_t begin = at;
    // A mark that the reference does not know must not be reordered with the ones after it: it stays outside.
    if (previous < at && detail::combining_class(static_cast<utf8proc_int32_t>(utf8_decode(text, previous))) == 0) {
      begin = previous;
    }
    while (at < text.size() && (classes.at(text, at) & kNfcActive) != 0) {
      at += utf8_length(text[at]);
    }
    if (!changed) {
      storage.clear();
      changed = true;
    }
    storage.append(text.substr(copied, begin - copied));
    detail::append_nfc_segment(storage, text.substr(begin, at - begin), buffer);
    copied = at;
    previous = at;
  }
  if (!changed) {
    return text;
  }
  storage.append(text.substr(copied));
  return storage;
}

/// Appends `text` with every non-overlapping `from` (not empty), left to right, replaced by `to`.
inline void append_replaced(std::string& out, std::string_view text, std::string_view from, std::string_view to) {
  std::size_t at = 0;
  for (std::size_t hit = text.find(from); hit != std::string_view::npos; hit = text.find(from, at)) {
    out.append(text, at, hit - at).append(to);
    at = hit + from.size();
  }
  out.append(text, at);
}

/// The fixed string that a Replace normaliser or decoder looks for; patterns that are regular expressions are refused.
inline std::string replace_pattern(const JsonNode& replace) {
  const JsonNode pattern = replace.at("pattern");
  if (!pattern.is_object() || !pattern.has("String")) {
    pattern.unsupported("{\"String\": …}");
  }
  const std::string& text = pattern.at("String").string();
  pattern.expect(!text.empty(), "a pattern that is not empty");
  return text;
}

/// The normaliser of a tokenizer.json: what happens to a text between added tokens before it is split.
class Normalizer {
 public:
  Normalizer() = default;

  /// Reads the value of "normalizer". UnsupportedError for a type not named at the top of this file.
  static Normalizer parse(const JsonNode& node) {
    Normalizer result;
    result.add(node);
    return result;
  }

  /// The normalised text: `text` itself where nothing changes, else a view of `storage`.
  std::string_view apply(std::string_view text, std::string& storage) const {
    for (const Step& step : steps_) {
      std::string next;
      switch (step.kind) {
        case Kind::kNfc:
          if (const std::string_view composed = nfc(text, next); composed.data() == text.data()) {
            continue;
          }
          break;
        case Kind::kPrepend:
          if (text.empty()) {
            continue;
          }
          next.reserve(text.size() + step.to.size());
          next.append(step.to).append(text);
          break;
        case Kind::kReplace:
          next.reserve(text.size() + text.size() / 2);  // spaces become three bytes, one character in five is a space
          append_replaced(next, text, step.from, step.to);
          break;
      }
      storage = std::move(next);
      text = storage;
    }
    return text;
  }

 private:
  enum class Kind : std::uint8_t { kNfc, kPrepend, kReplace };

  struct Step {
    Kind kind;
    std::string from;
    std::string to;
  };

  void add(const JsonNode& node) {
    const std::string& type = node.at("type").string();
    if (type == "Sequence") {
      const JsonNode parts = node.at("normalizers");
      for (std::size_t i = 0; i < parts.array_size(); ++i) {
        add(parts[i]);
      }
    } else if (type == "NFC") {
      steps_.push_back({Kind::kNfc, "", ""});
    } else if (type == "Prepend") {
      steps_.push_back({Kind::kPrepend, "", node.at("prepend").string()});
    } else if (type == "Replace") {
      steps_.push_back({Kind::kReplace, replace_pattern(node), node.at("content").string()});
    } else {
      node.at("type").unsupported("NFC, Prepend, Replace, Sequence");
    }
  }

  std::vector<Step> steps_;
};

}  // namespace perft::inline PERFT_ABI

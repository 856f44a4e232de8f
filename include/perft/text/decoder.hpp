#pragma once
// Decoders of tokenizer.json as a chain of stages that work token by token, so that decoding can stream.

#include <cstddef>      // std::size_t
#include <cstdint>      // std::uint8_t
#include <limits>       // Strip counts
#include <string>       // texts
#include <string_view>  // tokens
#include <vector>       // stages

#include "perft/text/json_node.hpp"
#include "perft/text/normalize.hpp"
#include "perft/text/pretokenize.hpp"
#include "perft/text/unicode.hpp"

namespace perft::inline PERFT_ABI {

/// The decoder of a tokenizer.json. Source: Hugging Face tokenizers, decoders/.
class DecoderChain {
 public:
  /// What the stages remember between tokens.
  struct State {
    struct Stage {
      std::string held;       // bytes that may still become a character
      std::size_t count = 0;  // tokens seen (Metaspace, Join), characters still to strip (Strip)
    };

    std::vector<Stage> stages;
  };

  /// Without a "decoder", tokens are joined by spaces.
  DecoderChain() : stages_{{Kind::kJoin, {}, {}, 0, 0}} {}

  /// Reads the value of "decoder". UnsupportedError for a type that is none of Replace, ByteFallback, Fuse, Strip,
  /// ByteLevel, Metaspace, Sequence, or for one that needs the whole text at once.
  static DecoderChain parse(const JsonNode& node) {
    DecoderChain chain;
    chain.stages_.clear();
    bool fused = false;
    chain.add(node, fused);
    return chain;
  }

  State start() const {
    State state;
    state.stages.resize(stages_.size());
    for (std::size_t i = 0; i < stages_.size(); ++i) {
      state.stages[i].count = stages_[i].kind == Kind::kStripText ? stages_[i].begin : 0;
    }
    return state;
  }

  /// Appends to `out` the text that `token` completes.
  void push(State& state, std::string_view token, std::string& out) const { feed(state, 0, token, out); }

  /// Appends what was held back: bytes that never became a character are U+FFFD.
  void finish(State& state, std::string& out) const {
    for (std::size_t i = 0; i < stages_.size(); ++i) {
      if (stages_[i].kind == Kind::kByteFallback) {
        release_run(state, i, out);
      } else if (stages_[i].kind == Kind::kByteLevel && !state.stages[i].held.empty()) {
        state.stages[i].held.clear();
        feed(state, i + 1, kReplacementCharacter, out);
      }
    }
  }

 private:
  enum class Kind : std::uint8_t { kReplace, kByteFallback, kByteLevel, kMetaspace, kStripToken, kStripText, kJoin };

  struct Stage {
    Kind kind;
    std::string from;   // Replace's pattern, Metaspace's replacement, Strip's character
    std::string to;     // Replace's content
    std::size_t begin;  // Strip's counts; Metaspace: 1 if the first token loses its spaces
    std::size_t end;
  };

  void add(const JsonNode& node, bool& fused) {
    constexpr std::int32_t kMany = std::numeric_limits<std::int32_t>::max();
    const std::string& type = node.at("type").string();
    if (type == "Sequence") {
      const JsonNode parts = node.at("decoders");
      for (std::size_t i = 0; i < parts.array_size(); ++i) {
        add(parts[i], fused);
      }
    } else if (type == "Fuse") {
      fused = true;
    } else if (type == "Strip") {
      const std::string& content = node.at("content").string();
      node.at("content").expect(!content.empty() && utf8_length(content[0]) == content.size(), "one character");
      const auto begin = static_cast<std::size_t>(node.at("start").index(kMany));
      const auto end = static_cast<std::size_t>(node.at("stop").index(kMany));
      if (fused && end > 0) {
        node.at("stop").unsupported("0 after Fuse");
      }
      stages_.push_back({fused ? Kind::kStripText : Kind::kStripToken, content, "", begin, end});
    } else if (fused) {
      node.at("type").unsupported("Fuse or Strip after Fuse or ByteLevel");
    } else if (type == "ByteLevel") {
      stages_.push_back({Kind::kByteLevel, "", "", 0, 0});
      fused = true;
    } else if (type == "Replace") {
      stages_.push_back({Kind::kReplace, replace_pattern(node), node.at("content").string(), 0, 0});
    } else if (type == "ByteFallback") {
      stages_.push_back({Kind::kByteFallback, "", "", 0, 0});
    } else if (type == "Metaspace") {
      const std::size_t first = PreTokenizer::metaspace_prepends(node) ? 1 : 0;
      stages_.push_back({Kind::kMetaspace, PreTokenizer::metaspace_replacement(node), "", first, 0});
    } else {
      node.at("type").unsupported("ByteFallback, ByteLevel, Fuse, Metaspace, Replace, Sequence, Strip");
    }
  }

  void feed(State& state, std::size_t at, std::string_view token, std::string& out) const {
    if (at == stages_.size()) {
      out.append(token);
      return;
    }
    const Stage& stage = stages_[at];
    State::Stage& mine = state.stages[at];
    std::string text;
    switch (stage.kind) {
      case Kind::kReplace:
        append_replaced(text, token, stage.from, stage.to);
        feed(state, at + 1, text, out);
        break;
      case Kind::kByteFallback:
        if (const int byte = fallback_byte(token); byte >= 0) {
          mine.held.push_back(static_cast<char>(static_cast<unsigned char>(byte)));
        } else {
          release_run(state, at, out);
          feed(state, at + 1, token, out);
        }
        break;
      case Kind::kByteLevel:
        append_bytes_of(token, mine.held);
        take_characters(mine.held, text);
        feed(state, at + 1, text, out);
        break;
      case Kind::kMetaspace:
        append_replaced(text, token, stage.from, mine.count++ == 0 && stage.begin == 1 ? "" : " ");
        feed(state, at + 1, text, out);
        break;
      case Kind::kStripToken:
        feed(state, at + 1, strip(token, stage), out);
        break;
      case Kind::kStripText:
        while (mine.count > 0 && token.substr(0, stage.from.size()) == stage.from) {
          token.remove_prefix(stage.from.size());
          --mine.count;
        }
        mine.count = token.empty() ? mine.count : 0;
        feed(state, at + 1, token, out);
        break;
      case Kind::kJoin:
        feed(state, at + 1, mine.count++ == 0 ? "" : " ", out);
        feed(state, at + 1, token, out);
        break;
    }
  }

  /// The byte of a token spelled <0xNN>, or -1.
  static int fallback_byte(std::string_view token) {
    const auto digit = [](char c) {
      return c >= '0' && c <= '9'   ? c - '0'
             : c >= 'A' && c <= 'F' ? c - 'A' + 10
             : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                    : -1;
    };
    if (token.size() != 6 || token.substr(0, 3) != "<0x" || token[5] != '>') {
      return -1;
    }
    const int high = digit(token[3]);
    const int low = digit(token[4]);
    return high < 0 || low < 0 ? -1 : 16 * high + low;
  }

  /// Ends a run of byte tokens. The run is one text or, if it is not UTF-8, one U+FFFD a byte: a late byte can spoil
  /// what an early one said, which is why the whole run is held back.
  void release_run(State& state, std::size_t at, std::string& out) const {
    const std::string run = std::move(state.stages[at].held);
    state.stages[at].held.clear();
    if (run.empty()) {
      return;
    }
    if (find_invalid_utf8(run) == std::string_view::npos) {
      feed(state, at + 1, run, out);
      return;
    }
    for (std::size_t i = 0; i < run.size(); ++i) {
      feed(state, at + 1, kReplacementCharacter, out);
    }
  }

  /// Appends the bytes that `token` spells in the ByteAlphabet, or its own bytes if a character is not of it.
  static void append_bytes_of(std::string_view token, std::string& bytes) {
    const std::size_t before = bytes.size();
    for (std::size_t i = 0; i < token.size(); i += utf8_length(token[i])) {
      const int byte = ByteAlphabet::get().byte(utf8_decode(token, i));
      if (byte < 0) {
        bytes.resize(before);
        bytes.append(token);
        return;
      }
      bytes.push_back(static_cast<char>(static_cast<unsigned char>(byte)));
    }
  }

  /// Moves all but an incomplete last character from `bytes` to `text`, ill-formed parts as U+FFFD.
  static void take_characters(std::string& bytes, std::string& text) {
    std::size_t at = 0;
    while (at < bytes.size()) {
      const Utf8Step step = utf8_step(bytes, at);
      if (step.kind == Utf8Step::Kind::kIncomplete) {
        break;
      }
      if (step.kind == Utf8Step::Kind::kCharacter) {
        text.append(bytes, at, step.length);
      } else {
        text.append(kReplacementCharacter);
      }
      at += step.length;
    }
    bytes.erase(0, at);
  }

  static std::string_view strip(std::string_view token, const Stage& stage) {
    const std::size_t width = stage.from.size();
    for (std::size_t i = 0; i < stage.begin && token.substr(0, width) == stage.from; ++i) {
      token.remove_prefix(width);
    }
    for (std::size_t i = 0; i < stage.end && token.size() >= width; ++i) {
      if (token.substr(token.size() - width) != stage.from) {
        break;
      }
      token.remove_suffix(width);
    }
    return token;
  }

  std::vector<Stage> stages_;
};

}  // namespace perft::inline PERFT_ABI

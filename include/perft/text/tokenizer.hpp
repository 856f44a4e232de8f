#pragma once
// The tokenizer: reads a Hugging Face tokenizer.json, turns text into token ids and back.

#include <algorithm>    // std::max
#include <cstddef>      // std::size_t
#include <cstdint>      // std::int32_t
#include <memory>       // scratch pool
#include <optional>     // id lookup
#include <span>         // ids
#include <string>       // texts
#include <string_view>  // texts
#include <utility>      // std::move
#include <vector>       // ids

#include "perft/io/json.hpp"
#include "perft/io/mapped_file.hpp"
#include "perft/text/added_tokens.hpp"
#include "perft/text/bpe.hpp"
#include "perft/text/bpe_file.hpp"
#include "perft/text/decoder.hpp"
#include "perft/text/json_node.hpp"
#include "perft/text/normalize.hpp"
#include "perft/text/post_process.hpp"
#include "perft/text/pretokenize.hpp"
#include "perft/text/scratch_pool.hpp"
#include "perft/text/unicode.hpp"
#include "perft/text/vocabulary.hpp"

namespace perft::inline PERFT_ABI {

/// A tokenizer of the byte-level (OLMoE) or byte-fallback (Mixtral, Llama) BPE kind. Gives the ids and texts of the
/// PyPI package tokenizers 0.23, with two exceptions: an id without a token is an error instead of nothing, and a
/// special token is left out of a text even where a normaliser has changed its spelling. Movable; const members may be
/// called from any number of threads.
class Tokenizer {
 public:
  /// Reads a tokenizer.json. IoError names the file, the key and what was expected there; UnsupportedError a part that
  /// perft does not implement (other models than BPE, regular expressions, truncation, padding, dropout, …).
  static Tokenizer load(const std::string& tokenizer_json_path) {
    const Json json = parse_json_strict(read_text_file(tokenizer_json_path), tokenizer_json_path);
    Tokenizer tokenizer;
    tokenizer.build(JsonNode(json, tokenizer_json_path));
    return tokenizer;
  }

  /// Token ids of `utf8`; with `add_special_tokens`, inside what the post-processor puts around a single text. Added
  /// tokens in the text are recognised either way. ValueError if the text is not valid UTF-8, with the byte.
  std::vector<std::int32_t> encode(std::string_view utf8, bool add_special_tokens = true) const {
    const std::size_t invalid = find_invalid_utf8(utf8);
    check<ValueError>(invalid == std::string_view::npos, "tokenizer: text is not valid UTF-8 at byte ", invalid,
                      "; convert it first");
    check<ValueError>(utf8.size() < kMaxBytes, "tokenizer: text has ", utf8.size(), " bytes, expected < ", kMaxBytes,
                      "; encode it in parts");
    std::vector<std::int32_t> ids;
    ids.reserve(utf8.size() / 3 + 8);
    if (add_special_tokens) {
      ids.insert(ids.end(), post_.before.begin(), post_.before.end());
    }
    const ScratchPool::Lease scratch(*pool_);
    const auto token = [&ids](std::int32_t id) { ids.push_back(id); };
    raw_added_.split(
        utf8, [&](std::size_t at, std::size_t size) { encode_raw(utf8.substr(at, size), at == 0, *scratch, ids); },
        token);
    if (add_special_tokens) {
      ids.insert(ids.end(), post_.after.begin(), post_.after.end());
    }
    return ids;
  }

  /// The text of `ids`. Bytes that are no UTF-8 become U+FFFD. ValueError for an id that has no token.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special_tokens = true) const {
    DecoderChain::State state = decoder_.start();
    std::string text;
    for (const std::int32_t id : ids) {
      decode_next(id, skip_special_tokens, state, text);
    }
    decoder_.finish(state, text);
    return text;
  }

  /// One more than the largest id, added tokens included.
  std::int32_t vocab_size() const { return vocabulary_.size(); }

  /// The id of a token by its exact spelling in the file ("Ġthe", "<s>").
  std::optional<std::int32_t> id(std::string_view token) const {
    const std::int32_t found = vocabulary_.find(token);
    return found < 0 ? std::nullopt : std::optional(found);
  }

  /// The spelling of a token in the file. ValueError for an id that has no token.
  std::string token(std::int32_t id) const {
    check_id(id);
    return vocabulary_.token(id);
  }

  /// Whether decode leaves the token out by default. ValueError for an id that has no token.
  bool is_special(std::int32_t id) const {
    check_id(id);
    return special_[static_cast<std::size_t>(id)];
  }

 private:
  friend class StreamDecoder;

  static constexpr std::size_t kMaxBytes = std::size_t{1} << 29;  // normalising may triple it; positions are 32-bit

  Tokenizer() = default;

  /// A piece between the added tokens that are looked for in the raw text.
  void encode_raw(std::string_view piece, bool at_start, BpeScratch& scratch, std::vector<std::int32_t>& ids) const {
    std::string storage;
    const std::string_view text = normalizer_.apply(piece, storage);
    const auto word = [&](std::string_view w) { model_.encode(vocabulary_, w, scratch, ids); };
    normalized_added_.split(
        text,
        [&](std::size_t at, std::size_t size) {
          pre_tokenizer_.split(text.substr(at, size), at_start && at == 0, word);
        },
        [&ids](std::int32_t id) { ids.push_back(id); });
  }

  void decode_next(std::int32_t id, bool skip_special, DecoderChain::State& state, std::string& text) const {
    check_id(id);
    const auto index = static_cast<std::size_t>(id);
    if (!skip_special || !special_[index]) {
      decoder_.push(state, spelling_[index].empty() ? vocabulary_.token(id) : spelling_[index], text);
    }
  }

  void check_id(std::int32_t id) const {
    check<ValueError>(vocabulary_.has(id), "tokenizer: id ", id, " has no token, expected 0 ≤ id < ",
                      vocabulary_.size());
  }

  void build(const JsonNode& root) {
    root.expect(root.is_object(), "a JSON object");
    const auto refuse = [&root](std::string_view key) {
      if (root.has(key)) {
        root.at(key).unsupported("null");
      }
    };
    refuse("truncation");
    refuse("padding");
    if (root.has("version") && root.at("version").string() != "1.0") {
      root.at("version").unsupported("\"1.0\"");
    }
    if (root.has("normalizer")) {
      normalizer_ = Normalizer::parse(root.at("normalizer"));
    }
    if (root.has("pre_tokenizer")) {
      pre_tokenizer_ = PreTokenizer::parse(root.at("pre_tokenizer"));
    }
    if (root.has("decoder")) {
      decoder_ = DecoderChain::parse(root.at("decoder"));
    }
    model_ = read_bpe(root.at("model"), pre_tokenizer_.byte_level(), vocabulary_);
    if (root.has("added_tokens")) {
      build_added(root.at("added_tokens"));
    }
    special_.resize(static_cast<std::size_t>(vocab_size()), false);
    spelling_.resize(static_cast<std::size_t>(vocab_size()));
    if (root.has("post_processor")) {
      post_ = PostProcessor::parse(root.at("post_processor"), vocab_size());
    }
  }

  void build_added(const JsonNode& list);

  Vocabulary vocabulary_;
  Bpe model_;
  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  DecoderChain decoder_;
  PostProcessor post_;
  AddedTokenMatcher raw_added_;
  AddedTokenMatcher normalized_added_;
  std::vector<bool> special_;
  std::vector<std::string> spelling_;  // what the decoder is given where it is not the token itself
  std::unique_ptr<ScratchPool> pool_ = std::make_unique<ScratchPool>();
};

inline void Tokenizer::build_added(const JsonNode& list) {
  const std::int32_t limit = Vocabulary::id_limit(vocabulary_.entries() + list.array_size());
  for (std::size_t i = 0; i < list.array_size(); ++i) {
    const JsonNode entry = list[i];
    AddedToken token;
    token.content = entry.at("content").string();
    token.id = entry.at("id").index(limit);
    token.single_word = entry.at("single_word").boolean();
    token.lstrip = entry.at("lstrip").boolean();
    token.rstrip = entry.at("rstrip").boolean();
    token.normalized = entry.at("normalized").boolean();
    token.special = entry.at("special").boolean();
    if (token.content.empty()) {
      continue;
    }
    const std::int32_t known = vocabulary_.find(token.content);
    entry.at("id").expect(known >= 0 ? known == token.id : vocabulary_.add(token.content, token.id, false),
                          "the id that model.vocab has for this content, or one that is free");
    std::string storage;
    std::string_view pattern = token.content;
    if (token.normalized) {
      pattern = normalizer_.apply(token.content, storage);
      entry.at("content").expect(!pattern.empty(), "a content that is not empty when normalised");
    }
    const auto index = static_cast<std::size_t>(token.id);
    special_.resize(std::max(special_.size(), index + 1), false);
    spelling_.resize(std::max(spelling_.size(), index + 1));
    special_[index] = token.special;
    if (pattern != token.content) {
      spelling_[index] = pattern;
    }
    entry.at("content").expect((token.normalized ? normalized_added_ : raw_added_).add(pattern, token),
                               "a content that is listed once");
  }
}

/// Decodes ids as they come. push() returns the characters that are certain; finish() the rest. Their concatenation is
/// decode() of the same ids.
class StreamDecoder {
 public:
  /// `tokenizer` must outlive this.
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special_tokens = true)
      : tokenizer_(&tokenizer), skip_special_(skip_special_tokens), state_(tokenizer.decoder_.start()) {}

  /// Text that `id` completes: whole characters, perhaps none (a run of byte tokens is held until it ends). ValueError
  /// for an id that has no token.
  std::string push(std::int32_t id) {
    std::string text;
    tokenizer_->decode_next(id, skip_special_, state_, text);
    return text;
  }

  /// What is left, and a fresh start.
  std::string finish() {
    std::string text;
    tokenizer_->decoder_.finish(state_, text);
    state_ = tokenizer_->decoder_.start();
    return text;
  }

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  DecoderChain::State state_;
};

}  // namespace perft::inline PERFT_ABI

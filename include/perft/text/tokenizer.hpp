#pragma once
// The tokenizer: reads a Hugging Face tokenizer.json, turns text into token ids and back.

#include <cstddef>      // std::size_t
#include <cstdint>      // std::int32_t
#include <fstream>      // the file
#include <iterator>     // std::istreambuf_iterator
#include <limits>       // text length
#include <memory>       // scratch pool
#include <mutex>        // scratch pool
#include <optional>     // id lookup
#include <span>         // ids
#include <string>       // texts
#include <string_view>  // texts
#include <utility>      // std::move
#include <vector>       // ids

#include "perft/text/added_tokens.hpp"
#include "perft/text/bpe.hpp"
#include "perft/text/decoder.hpp"
#include "perft/text/json_node.hpp"
#include "perft/text/normalize.hpp"
#include "perft/text/post_process.hpp"
#include "perft/text/pretokenize.hpp"
#include "perft/text/unicode.hpp"
#include "perft/text/vocabulary.hpp"

namespace perft::inline PERFT_ABI {

/// A tokenizer of the byte-level (OLMoE) or byte-fallback (Mixtral, Llama) BPE kind. Gives the ids and texts of the PyPI
/// package tokenizers 0.23, with two exceptions: an id without a token is an error instead of nothing, and a special
/// token is left out of a text even where a normaliser has changed its spelling. Movable; const members may be called from
/// any number of threads.
class Tokenizer {
 public:
  /// Reads a tokenizer.json. IoError names the file, the key and what was expected there; UnsupportedError a part that
  /// perft does not implement (other models than BPE, regular expressions, truncation, padding, dropout, …).
  static Tokenizer load(const std::string& tokenizer_json_path) {
    const Json json = parse_json(read_text(tokenizer_json_path), tokenizer_json_path);
    Tokenizer tokenizer;
    tokenizer.build(JsonNode(json, tokenizer_json_path));
    return tokenizer;
  }

  /// Token ids of `utf8`; with `add_special_tokens`, inside what the post-processor puts around a single text. Added tokens
  /// in the text are recognised either way. ValueError if the text is not valid UTF-8, with the byte.
  std::vector<std::int32_t> encode(std::string_view utf8, bool add_special_tokens = true) const {
    const std::size_t invalid = find_invalid_utf8(utf8);
    check<ValueError>(invalid == std::string_view::npos, "tokenizer: text is not valid UTF-8 at byte ", invalid,
                      "; convert it first");
    check<ValueError>(utf8.size() < kMaxBytes, "tokenizer: text has ", utf8.size(), " bytes, expected < ", kMaxBytes,
                      "; encode it in parts");
    std::vector<std::int32_t> ids;
    ids.reserve(utf8.size() / 3 + 8);
    if (add_special_tokens) {
      ids = post_.before;
    }
    Lease scratch(*pool_);
    const auto token = [&ids](std::int32_t id) { ids.push_back(id); };
    raw_added_.split(
        utf8, [&](std::size_t at, std::size_t size) { encode_raw(utf8.substr(at, size), at == 0, *scratch, ids); }, token);
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

  /// Scratch memory that is not in use. An encoding thread borrows one, so words are cached without locking per word.
  struct ScratchPool {
    std::mutex mutex;
    std::vector<std::unique_ptr<BpeScratch>> idle;
  };

  class Lease {
   public:
    explicit Lease(ScratchPool& pool) : pool_(pool) {
      {
        const std::lock_guard lock(pool.mutex);
        if (!pool.idle.empty()) {
          scratch_ = std::move(pool.idle.back());
          pool.idle.pop_back();
        }
      }
      if (!scratch_) {
        scratch_ = std::make_unique<BpeScratch>();
      }
    }

    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;

    ~Lease() {
      const std::lock_guard lock(pool_.mutex);
      pool_.idle.push_back(std::move(scratch_));
    }

    BpeScratch& operator*() const { return *scratch_; }

   private:
    ScratchPool& pool_;
    std::unique_ptr<BpeScratch> scratch_;
  };

  Tokenizer() = default;

  static std::string read_text(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    check<IoError>(file.is_open(), path, ": cannot be opened; expected a model's tokenizer.json");
    std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    check<IoError>(!file.bad(), path, ": reading failed; expected a model's tokenizer.json");
    return text;
  }

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
    check<ValueError>(vocabulary_.has(id), "tokenizer: id ", id, " has no token, expected 0 ≤ id < ", vocabulary_.size());
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
    build_model(root.at("model"));
    if (root.has("added_tokens")) {
      build_added(root.at("added_tokens"));
    }
    special_.resize(static_cast<std::size_t>(vocab_size()), false);
    spelling_.resize(static_cast<std::size_t>(vocab_size()));
    if (root.has("post_processor")) {
      post_ = PostProcessor::parse(root.at("post_processor"), vocab_size());
    }
  }

  void build_model(const JsonNode& model);
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

inline void Tokenizer::build_model(const JsonNode& model) {
  if (model.has("type") && model.at("type").string() != "BPE") {
    model.at("type").unsupported("BPE");
  }
  const auto refuse_text = [&model](std::string_view key) {
    if (model.has(key) && !model.at(key).string().empty()) {
      model.at(key).unsupported("null");
    }
  };
  refuse_text("continuing_subword_prefix");
  refuse_text("end_of_word_suffix");
  if (model.has("dropout") && model.at("dropout").json() != 0) {
    model.at("dropout").unsupported("null");
  }
  const JsonNode vocabulary = model.at("vocab");
  vocabulary.expect(vocabulary.is_object(), "an object of token: id");
  for (const auto& [token, value] : vocabulary.json().items()) {
    const JsonNode entry(value, model.file(), "model.vocab['" + token + "']");
    entry.expect(vocabulary_.add(token, entry.index(Vocabulary::kMaxIds), true), "an id that no other token has");
  }

  const JsonNode merges = model.at("merges");
  const std::size_t count = merges.array_size();
  std::vector<BpeRule> rules;
  rules.reserve(count);
  for (std::size_t rank = 0; rank < count; ++rank) {
    const Json& value = merges.json()[rank];
    std::string_view left;
    std::string_view right;
    if (value.is_string()) {
      const std::string_view both = value.get_ref<const std::string&>();
      if (both.substr(0, 8) == "#version") {
        continue;
      }
      const std::size_t space = both.find(' ');
      if (space != std::string_view::npos && both.find(' ', space + 1) == std::string_view::npos) {
        left = both.substr(0, space);
        right = both.substr(space + 1);
      }
    } else if (value.is_array() && value.size() == 2 && value[0].is_string() && value[1].is_string()) {
      left = value[0].get_ref<const std::string&>();
      right = value[1].get_ref<const std::string&>();
    }
    const std::int32_t a = vocabulary_.find(left);
    const std::int32_t b = vocabulary_.find(right);
    const std::int32_t product = vocabulary_.find(std::string(left).append(right));
    if (a < 0 || b < 0 || product < 0) {
      merges[rank].expect(false, "two tokens that are, alone and joined, in model.vocab: \"a b\" or [\"a\", \"b\"]");
    }
    rules.push_back({a, b, product});
  }

  BpeOptions options;
  options.fuse_unk = model.boolean_or("fuse_unk", false);
  options.byte_fallback = model.boolean_or("byte_fallback", false);
  options.ignore_merges = model.boolean_or("ignore_merges", false);
  options.byte_level = pre_tokenizer_.byte_level();
  if (model.has("unk_token")) {
    options.unk = vocabulary_.find(model.at("unk_token").string());
    model.at("unk_token").expect(options.unk >= 0, "a token of model.vocab");
  }
  model_ = Bpe(vocabulary_, rules, options);
}

inline void Tokenizer::build_added(const JsonNode& list) {
  for (std::size_t i = 0; i < list.array_size(); ++i) {
    const JsonNode entry = list[i];
    AddedToken token;
    token.content = entry.at("content").string();
    token.id = entry.at("id").index(Vocabulary::kMaxIds);
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

  /// Text that `id` completes: whole characters, perhaps none (a run of byte tokens is held until it ends). ValueError for
  /// an id that has no token.
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

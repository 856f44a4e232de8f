#pragma once
// Reads the "model" of a tokenizer.json: its vocabulary, merges and switches.

#include <cstddef>      // std::size_t
#include <cstdint>      // std::int32_t
#include <string>       // tokens
#include <string_view>  // merges
#include <vector>       // rules

#include "perft/text/bpe.hpp"
#include "perft/text/json_node.hpp"
#include "perft/text/vocabulary.hpp"

namespace perft::inline PERFT_ABI {

/// The BPE model that `model` describes; its tokens are added to `vocabulary` (empty). `byte_level` says that the
/// pre-tokeniser hands over bytes. Merges may be "a b" or ["a", "b"]. IoError for an id or a merge that contradicts the
/// vocabulary; UnsupportedError for another model type, a prefix or suffix of words, dropout.
inline Bpe read_bpe(const JsonNode& model, bool byte_level, Vocabulary& vocabulary) {
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
  const JsonNode entries = model.at("vocab");
  entries.expect(entries.is_object(), "an object of token: id");
  const std::int32_t limit = Vocabulary::id_limit(entries.json().size());
  for (const auto& [token, value] : entries.json().items()) {
    const JsonNode entry(value, model.file(), "model.vocab[" + token + ']');
    entry.expect(vocabulary.add(token, entry.index(limit), true), "an id that no other token has");
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
    const std::int32_t a = vocabulary.find(left);
    const std::int32_t b = vocabulary.find(right);
    const std::int32_t product = vocabulary.find(std::string(left).append(right));
    if (a < 0 || b < 0 || product < 0) {
      merges[rank].expect(false, "two tokens that are, alone and joined, in model.vocab: \"a b\" or [\"a\", \"b\"]");
    }
    rules.push_back({a, b, product});
  }

  BpeOptions options;
  options.fuse_unk = model.boolean_or("fuse_unk", false);
  options.byte_fallback = model.boolean_or("byte_fallback", false);
  options.ignore_merges = model.boolean_or("ignore_merges", false);
  options.byte_level = byte_level;
  if (model.has("unk_token")) {
    options.unk = vocabulary.find(model.at("unk_token").string());
    model.at("unk_token").expect(options.unk >= 0, "a token of model.vocab");
  }
  return Bpe(vocabulary, rules, options);
}

}  // namespace perft::inline PERFT_ABI

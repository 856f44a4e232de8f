#pragma once
// Small tokenizer.json files made by hand, and the two real ones of the fixtures folder.

#include <stdexcept>  // a wrong fixture
#include <string>     // texts

#include "io/temp_folder.hpp"
#include "perft/io/json.hpp"
#include "perft/text/tokenizer.hpp"

namespace text_test {

inline std::string fixture(const std::string& name) {
  return std::string(PERFT_FIXTURES) + "/tokenizers/" + name;
}

inline const perft::Tokenizer& olmoe() {
  static const perft::Tokenizer tokenizer = perft::Tokenizer::load(fixture("olmoe/tokenizer.json"));
  return tokenizer;
}

inline const perft::Tokenizer& mixtral() {
  static const perft::Tokenizer tokenizer = perft::Tokenizer::load(fixture("mixtral/tokenizer.json"));
  return tokenizer;
}

/// A tokenizer.json without normaliser, pre-tokeniser and decoder: a b c ab abc, merges in both spellings.
inline perft::Json tiny() {
  return perft::parse_json(R"({
    "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
    "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "fuse_unk": false, "byte_fallback": false,
              "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4, " ": 5, "▁": 6},
              "merges": [["a", "b"], ["ab", "c"]]}})",
                           "tiny");
}

inline perft::Json added(int id, const std::string& content) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", false}};
}

inline perft::Tokenizer load(const perft::Json& json) {
  const io_test::TempFolder folder;
  return perft::Tokenizer::load(folder.write("tokenizer.json", json.dump()));
}

/// The error of loading `text` as a tokenizer.json, with "F" for the file's name; empty if it loads.
template <class Error>
std::string load_error(const std::string& text) {
  const io_test::TempFolder folder;
  const std::string path = folder.write("tokenizer.json", text);
  try {
    (void)perft::Tokenizer::load(path);
  } catch (const Error& error) {
    std::string message = error.what();
    const std::size_t at = message.find(path);
    if (at == std::string::npos) throw std::runtime_error("the message does not name the file: " + message);
    return message.replace(at, path.size(), "F");
  }
  return "";
}

}  // namespace text_test

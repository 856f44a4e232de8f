#pragma once
// Post-processors of tokenizer.json: which ids are put around a text when special tokens are asked for.

#include <cstddef>  // std::size_t
#include <cstdint>  // std::int32_t
#include <string>   // type names
#include <vector>   // ids

#include "perft/text/json_node.hpp"

namespace perft::inline PERFT_ABI {

/// The post-processor of a tokenizer.json, as far as one sequence of ids is concerned.
class PostProcessor {
 public:
  std::vector<std::int32_t> before;
  std::vector<std::int32_t> after;

  /// Reads the value of "post_processor". `limit` bounds the ids. UnsupportedError for a type that is none of ByteLevel
  /// (which only moves offsets), TemplateProcessing and a Sequence of these.
  static PostProcessor parse(const JsonNode& node, std::int32_t limit) {
    PostProcessor result;
    result.add(node, limit);
    return result;
  }

 private:
  void add(const JsonNode& node, std::int32_t limit) {
    const std::string& type = node.at("type").string();
    if (type == "Sequence") {
      const JsonNode parts = node.at("processors");
      for (std::size_t i = 0; i < parts.array_size(); ++i) {
        add(parts[i], limit);
      }
    } else if (type == "TemplateProcessing") {
      add_template(node, limit);
    } else if (type != "ByteLevel") {
      node.at("type").unsupported("ByteLevel, Sequence, TemplateProcessing");
    }
  }

  /// A template in a Sequence goes around what the ones before it made.
  void add_template(const JsonNode& node, std::int32_t limit) {
    std::vector<std::int32_t> left;
    std::vector<std::int32_t> right;
    bool seen = false;
    const JsonNode single = node.at("single");
    for (std::size_t i = 0; i < single.array_size(); ++i) {
      const JsonNode piece = single[i];
      if (piece.has("Sequence")) {
        const JsonNode id = piece.at("Sequence").at("id");
        id.expect(id.string() == "A" && !seen, "the sequence A, once");
        seen = true;
        continue;
      }
      const std::string& name = piece.at("SpecialToken").at("id").string();
      const JsonNode ids = node.at("special_tokens").at(name).at("ids");
      for (std::size_t k = 0; k < ids.array_size(); ++k) {
        (seen ? right : left).push_back(ids[k].index(limit));
      }
    }
    single.expect(seen, "the sequence A, once");
    before.insert(before.begin(), left.begin(), left.end());
    after.insert(after.end(), right.begin(), right.end());
  }
};

}  // namespace perft::inline PERFT_ABI

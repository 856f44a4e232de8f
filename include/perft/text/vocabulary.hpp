#pragma once
// Token strings and their ids, both ways.

#include <algorithm>      // std::min
#include <cstddef>        // std::size_t
#include <cstdint>        // fixed-width integers
#include <functional>     // std::hash, std::equal_to
#include <string>         // tokens
#include <string_view>    // lookups
#include <unordered_map>  // token -> id
#include <vector>         // id -> token

#include "perft/core/config.hpp"

namespace perft::inline PERFT_ABI {

/// A model's vocabulary and the added tokens beside it; ids may have holes.
class Vocabulary {
 public:
  /// One more than the largest id that a tokenizer.json of `entries` tokens may give. Ids index vectors, so one corrupt
  /// id must not ask for gigabytes. Published vocabularies count from 0 and leave at most some hundred reserved ids
  /// out; the slack is for small ones with added tokens far above, whose vectors then take a few megabytes.
  static std::int32_t id_limit(std::size_t entries) {
    constexpr std::size_t kSlack = 65536;
    constexpr std::size_t kMost = std::size_t{1} << 24;  // the largest known is below 2^19
    return static_cast<std::int32_t>(std::min(kMost, kSlack + 16 * std::min(entries, kMost)));
  }

  /// Adds a token of the model, or one that only the search for added tokens knows; false if its string or its id (in
  /// [0, id_limit()))
  /// is taken.
  bool add(const std::string& token, std::int32_t id, bool of_model) {
    const auto index = static_cast<std::size_t>(id);
    if (has(id) || !ids_.emplace(token, id).second) {
      return false;
    }
    if (index >= tokens_.size()) {
      tokens_.resize(index + 1);
      origins_.resize(index + 1, Origin::kNone);
    }
    tokens_[index] = token;
    origins_[index] = of_model ? Origin::kModel : Origin::kAdded;
    return true;
  }

  /// The id of `token`, or -1.
  std::int32_t find(std::string_view token) const {
    const auto it = ids_.find(token);
    return it == ids_.end() ? -1 : it->second;
  }

  /// The id of `token` if it is one of the model's, or -1.
  std::int32_t find_in_model(std::string_view token) const {
    const std::int32_t id = find(token);
    return id >= 0 && origins_[static_cast<std::size_t>(id)] == Origin::kModel ? id : -1;
  }

  /// One more than the largest id.
  std::int32_t size() const { return static_cast<std::int32_t>(tokens_.size()); }

  /// How many tokens there are.
  std::size_t entries() const { return ids_.size(); }

  bool has(std::int32_t id) const {
    return id >= 0 && id < size() && origins_[static_cast<std::size_t>(id)] != Origin::kNone;
  }

  /// The string of an id that has() one.
  const std::string& token(std::int32_t id) const { return tokens_[static_cast<std::size_t>(id)]; }

 private:
  enum class Origin : std::uint8_t { kNone, kModel, kAdded };

  struct Hash {
    using is_transparent = void;

    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };

  std::unordered_map<std::string, std::int32_t, Hash, std::equal_to<>> ids_;
  std::vector<std::string> tokens_;
  std::vector<Origin> origins_;
};

}  // namespace perft::inline PERFT_ABI

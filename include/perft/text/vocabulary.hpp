#pragma once
// Token strings and their ids, both ways.

#include <cstddef>        // std::size_t
#include <cstdint>        // std::int32_t
#include <functional>     // std::hash, std::equal_to
#include <string>         // tokens
#include <string_view>    // lookups
#include <unordered_map>  // token -> id
#include <vector>         // id -> token

#include "perft/core/error.hpp"

namespace perft::inline PERFT_ABI {

/// A vocabulary; ids may have holes.
class Vocabulary {
 public:
  static constexpr std::int32_t kMaxIds = 1 << 24;  // a corrupt id must not ask for gigabytes; the largest known is 2^18

  /// Adds a token; false if its string or its id (in [0, kMaxIds)) is taken.
  bool add(const std::string& token, std::int32_t id) {
    const auto index = static_cast<std::size_t>(id);
    if (index < present_.size() && present_[index]) {
      return false;
    }
    if (!ids_.emplace(token, id).second) {
      return false;
    }
    if (index >= tokens_.size()) {
      tokens_.resize(index + 1);
      present_.resize(index + 1, false);
    }
    tokens_[index] = token;
    present_[index] = true;
    return true;
  }

  /// The id of `token`, or -1.
  std::int32_t find(std::string_view token) const {
    const auto it = ids_.find(token);
    return it == ids_.end() ? -1 : it->second;
  }

  /// One more than the largest id.
  std::int32_t size() const { return static_cast<std::int32_t>(tokens_.size()); }

  /// How many tokens there are: size() less the holes.
  std::size_t count() const { return ids_.size(); }

  bool has(std::int32_t id) const { return id >= 0 && id < size() && present_[static_cast<std::size_t>(id)]; }

  /// The string of an id that has() one.
  const std::string& token(std::int32_t id) const { return tokens_[static_cast<std::size_t>(id)]; }

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };

  std::unordered_map<std::string, std::int32_t, Hash, std::equal_to<>> ids_;
  std::vector<std::string> tokens_;
  std::vector<bool> present_;
};

}  // namespace perft::inline PERFT_ABI

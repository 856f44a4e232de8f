#pragma once
// The merges of a BPE model as one open-addressing table: pair of token ids -> rank and product.

#include <cstddef>  // std::size_t
#include <cstdint>  // fixed-width integers
#include <limits>   // kNone
#include <span>     // rules
#include <vector>   // the table

#include "perft/core/config.hpp"

namespace perft::inline PERFT_ABI {

/// A merge rule in token ids, as a tokenizer.json lists them.
struct BpeRule {
  std::int32_t left;
  std::int32_t right;
  std::int32_t product;
};

/// What a pair of neighbouring tokens becomes, and how early: a smaller rank is merged first.
struct BpeMerge {
  std::uint32_t rank;
  std::int32_t product;
};

/// Lookup is on the critical path of every uncached word: a power-of-two table at most half full, linear probing.
class MergeTable {
 public:
  static constexpr std::uint32_t kNone = std::numeric_limits<std::uint32_t>::max();  // rank of a pair that is no merge

  MergeTable() : slots_(2) {}

  /// A rule's rank is its index; of two rules for one pair the later counts.
  explicit MergeTable(std::span<const BpeRule> rules) {
    std::size_t capacity = 2;
    while (capacity < 2 * rules.size()) {
      capacity *= 2;
    }
    slots_.resize(capacity);
    for (std::size_t rank = 0; rank < rules.size(); ++rank) {
      const std::uint64_t pair = key(rules[rank].left, rules[rank].right);
      slots_[slot(pair)] = {pair, {static_cast<std::uint32_t>(rank), rules[rank].product}};
    }
  }

  /// The merge of two token ids; rank kNone if there is none.
  BpeMerge find(std::int32_t left, std::int32_t right) const { return slots_[slot(key(left, right))].merge; }

 private:
  struct Slot {
    std::uint64_t pair = 0;
    BpeMerge merge{kNone, -1};
  };

  static std::uint64_t key(std::int32_t left, std::int32_t right) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
  }

  /// Where `pair` is, or would go.
  std::size_t slot(std::uint64_t pair) const {
    std::size_t at = static_cast<std::size_t>(pair * 0x9E3779B97F4A7C15U >> 32) & (slots_.size() - 1);
    while (slots_[at].merge.rank != kNone && slots_[at].pair != pair) {
      at = (at + 1) & (slots_.size() - 1);
    }
    return at;
  }

  std::vector<Slot> slots_;
};

}  // namespace perft::inline PERFT_ABI

#pragma once
// A fixed-size cache of words and their token ids: real text repeats its words, and merging is the slow part.

#include <algorithm>    // std::copy
#include <array>        // slots
#include <cstddef>      // std::size_t
#include <cstdint>      // fixed-width integers
#include <cstring>      // std::memcpy, std::memcmp
#include <span>         // ids
#include <string_view>  // words
#include <vector>       // the table

#include "perft/core/config.hpp"

namespace perft::inline PERFT_ABI {

/// 64-bit hash of a short byte string; eight bytes a step, the last step overlapping.
inline std::uint64_t hash_bytes(std::string_view bytes) {
  constexpr std::uint64_t kMultiplier = 0x9E3779B97F4A7C15U;
  std::uint64_t hash = bytes.size() * kMultiplier;
  const auto mix = [&hash](std::uint64_t word) {
    hash = (hash ^ word) * kMultiplier;
    hash ^= hash >> 29;
  };
  const char* data = bytes.data();
  std::size_t left = bytes.size();
  for (; left > 8; left -= 8, data += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, data, 8);
    mix(word);
  }
  std::uint64_t tail = 0;
  if (left >= 4) {  // two overlapping loads of fixed size are cheaper than one of variable size
    std::uint32_t low = 0;
    std::uint32_t high = 0;
    std::memcpy(&low, data, 4);
    std::memcpy(&high, data + left - 4, 4);
    tail = low | static_cast<std::uint64_t>(high) << 32;
  } else {
    for (std::size_t i = 0; i < left; ++i) {
      tail = tail << 8 | static_cast<unsigned char>(data[i]);
    }
  }
  mix(tail);
  return hash * kMultiplier >> 32;
}

/// Direct-mapped; a slot is one cache line, so words over 28 bytes or 8 tokens (under 1 % of English) are not kept.
/// Not thread-safe: a thread that encodes holds one of its own.
class WordCache {
 public:
  /// The ids of `word` (not empty), or an empty span if they are not cached. Valid until the next put().
  std::span<const std::int32_t> find(std::string_view word) const {
    if (word.size() > kMaxBytes) {
      return {};
    }
    const Slot& slot = slots_[hash_bytes(word) % kSlots];
    const bool hit = slot.bytes == word.size() && std::memcmp(slot.word.data(), word.data(), word.size()) == 0;
    return hit ? std::span(slot.ids).first(slot.count) : std::span<const std::int32_t>();
  }

  /// Remembers `ids` for `word`, in place of whatever shared its slot; does nothing if either is too long or empty.
  void put(std::string_view word, std::span<const std::int32_t> ids) {
    if (word.empty() || word.size() > kMaxBytes || ids.empty() || ids.size() > kMaxIds) {
      return;
    }
    Slot& slot = slots_[hash_bytes(word) % kSlots];
    slot.bytes = static_cast<std::uint8_t>(word.size());
    slot.count = static_cast<std::uint8_t>(ids.size());
    std::memcpy(slot.word.data(), word.data(), word.size());
    std::copy(ids.begin(), ids.end(), slot.ids.begin());
  }

 private:
  static constexpr std::size_t kMaxBytes = 28;
  static constexpr std::size_t kMaxIds = 8;
  static constexpr std::size_t kSlots = std::size_t{1} << 15;  // 2 MB: the L2 of a current core

  struct alignas(64) Slot {
    std::array<std::int32_t, kMaxIds> ids;
    std::array<char, kMaxBytes> word;
    std::uint8_t bytes = 0;
    std::uint8_t count = 0;
  };

  std::vector<Slot> slots_ = std::vector<Slot>(kSlots);
};

}  // namespace perft::inline PERFT_ABI

#pragma once
// A 64-bit fingerprint, to notice that something has changed; not to keep out somebody who wants to be mistaken.

#include <algorithm>  // std::min
#include <cstddef>    // std::size_t
#include <cstdint>    // words
#include <cstring>    // std::memcpy
#include <span>       // values

namespace perft::cli {

class Fingerprint {
 public:
  void add(std::uint64_t word) {
    // Each line is one-to-one, so that a single word that differs is never lost.
    state_ = (state_ ^ word) * 0x9E3779B97F4A7C15U;
    state_ ^= state_ >> 29U;
  }

  /// The number of bytes counts too: lists of different lengths never run together.
  void add_bytes(const void* data, std::size_t bytes) {
    add(bytes);
    const auto* from = static_cast<const char*>(data);
    for (std::size_t at = 0; at < bytes; at += sizeof(std::uint64_t)) {
      std::uint64_t word = 0;
      std::memcpy(&word, from + at, std::min(sizeof(word), bytes - at));
      add(word);
    }
  }

  template <class T>
  void add_values(std::span<const T> values) {
    add_bytes(values.data(), values.size_bytes());
  }

  /// As safetensors can hold it.
  std::int64_t value() const { return static_cast<std::int64_t>(state_); }

 private:
  std::uint64_t state_ = 0x2545F4914F6CDD1D;
};

}  // namespace perft::cli

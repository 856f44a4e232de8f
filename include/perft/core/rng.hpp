#pragma once
// Counter-based random numbers: Philox4x32-10. A number is a pure function of (key, counter), so a dropout mask is
// never stored, recomputation is exact, and nothing depends on threads, packing or micro-batching.

#include <array>    // four words per counter
#include <cmath>    // Box-Muller
#include <cstdint>  // fixed-width integers
#include <numbers>  // pi

#include "perft/core/config.hpp"

namespace perft::inline PERFT_ABI {

/// 64-bit key of one stream.
struct PhiloxKey {
  std::uint32_t lo = 0;
  std::uint32_t hi = 0;
};

/// Four 32-bit words from a 128-bit counter. Source: Salmon et al. 2011, Philox4x32 with 10 rounds.
constexpr std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, PhiloxKey key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53U} * counter[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57U} * counter[2];
    counter = {static_cast<std::uint32_t>(p1 >> 32) ^ counter[1] ^ key.lo, static_cast<std::uint32_t>(p1),
               static_cast<std::uint32_t>(p0 >> 32) ^ counter[3] ^ key.hi, static_cast<std::uint32_t>(p0)};
    key.lo += 0x9E3779B9U;
    key.hi += 0xBB67AE85U;
  }
  return counter;
}

/// Uniform in the open interval (0, 1) with 32 random bits.
constexpr double philox_uniform(std::uint32_t word) {
  return (static_cast<double>(word) + 0.5) * 0x1.0p-32;
}

/// A sequential stream of uniforms and normals over one key; used for initialisation and shuffling, where order is
/// fixed.
class PhiloxStream {
 public:
  /// Starts at the stream's number 4 · `block`, where a thread that draws its part alone begins.
  explicit PhiloxStream(std::uint64_t seed, std::uint64_t stream = 0, std::uint64_t block = 0)
      : key_{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)},
        stream_(stream),
        counter_(block) {}

  std::uint32_t next() {
    if (used_ == 4) {
      block_ = philox({static_cast<std::uint32_t>(counter_), static_cast<std::uint32_t>(counter_ >> 32),
                       static_cast<std::uint32_t>(stream_), static_cast<std::uint32_t>(stream_ >> 32)},
                      key_);
      ++counter_;
      used_ = 0;
    }
    return block_[used_++];
  }

  double uniform() { return philox_uniform(next()); }

  /// Uniform integer in [0, bound), bound ≥ 1, without modulo bias (Lemire's rejection).
  std::uint32_t below(std::uint32_t bound) {
    const std::uint32_t threshold = (0U - bound) % bound;
    for (;;) {
      const std::uint64_t product = std::uint64_t{next()} * bound;
      if (static_cast<std::uint32_t>(product) >= threshold) {
        return static_cast<std::uint32_t>(product >> 32);
      }
    }
  }

  /// Standard normal (Box-Muller, both values used).
  double normal() {
    if (has_spare_) {
      has_spare_ = false;
      return spare_;
    }
    const double radius = std::sqrt(-2.0 * std::log(uniform()));
    const double angle = 2.0 * std::numbers::pi * uniform();
    spare_ = radius * std::sin(angle);
    has_spare_ = true;
    return radius * std::cos(angle);
  }

 private:
  PhiloxKey key_;
  std::uint64_t stream_;
  std::uint64_t counter_;
  std::array<std::uint32_t, 4> block_{};
  std::size_t used_ = 4;
  double spare_ = 0;
  bool has_spare_ = false;
};

}  // namespace perft::inline PERFT_ABI

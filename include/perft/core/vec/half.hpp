#pragma once
// f16 storage: read from checkpoints, never computed in.

#include <bit>      // std::bit_cast
#include <cstdint>  // fixed-width integers

#include "perft/core/config.hpp"
#include "perft/core/dtype.hpp"

namespace perft::inline PERFT_ABI {

/// IEEE binary16. Storage only; widening to float is exact.
struct f16 {
  std::uint16_t bits = 0;

  constexpr operator float() const {  // NOLINT(google-explicit-constructor): widening is exact
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000U) << 16;
    const std::uint32_t magnitude = bits & 0x7fffU;
    if (magnitude >= 0x7c00U) {  // infinity, NaN
      return std::bit_cast<float>(sign | 0x7f800000U | ((magnitude & 0x3ffU) << 13));
    }
    if (magnitude < 0x400U) {  // zero, subnormal: the value is magnitude · 2^-24
      const float value = static_cast<float>(magnitude) * 0x1.0p-24F;
      return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(value));
    }
    return std::bit_cast<float>(sign | ((magnitude << 13) + 0x38000000U));
  }
};

static_assert(sizeof(f16) == 2);

template <>
struct DTypeOf<f16> {
  static constexpr DType value = DType::f16;
};

}  // namespace perft::inline PERFT_ABI

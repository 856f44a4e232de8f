#pragma once
// Element types: bf16 storage, the DType tag for formats known only at run time, and the parameter type of a compute
// type.

#include <bit>          // std::bit_cast
#include <concepts>     // the element concepts
#include <cstddef>      // std::size_t
#include <cstdint>      // fixed-width integers
#include <string_view>  // names
#include <type_traits>  // std::conditional_t

#include "perft/core/config.hpp"

namespace perft::inline PERFT_ABI {

/// bfloat16: the upper half of an IEEE binary32. Storage only (GCC 12 has no arithmetic type); arithmetic is done in
/// float.
struct bf16 {
  std::uint16_t bits = 0;

  bf16() = default;

  /// Rounds to nearest, ties to even; a NaN stays a (quiet) NaN.
  explicit constexpr bf16(float value) {
    const auto u = std::bit_cast<std::uint32_t>(value);
    if ((u & 0x7fffffffU) > 0x7f800000U) {
      bits = static_cast<std::uint16_t>((u >> 16) | 0x40U);
    } else {
      bits = static_cast<std::uint16_t>((u + 0x7fffU + ((u >> 16) & 1U)) >> 16);
    }
  }

  explicit constexpr bf16(double value) : bf16(static_cast<float>(value)) {}

  constexpr operator float() const {  // NOLINT(google-explicit-constructor): widening is exact
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }

  static constexpr bf16 from_bits(std::uint16_t b) {
    bf16 x;
    x.bits = b;
    return x;
  }
};

static_assert(sizeof(bf16) == 2 && std::is_trivially_copyable_v<bf16>);

/// Element types whose identity is a fact of a file, not of a type.
enum class DType : std::uint8_t { f64, f32, f16, bf16, i64, i32, i16, i8, u8, boolean };

constexpr std::size_t dtype_size(DType type) {
  switch (type) {
    case DType::f64:
    case DType::i64:
      return 8;
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::f16:
    case DType::bf16:
    case DType::i16:
      return 2;
    case DType::i8:
    case DType::u8:
    case DType::boolean:
      return 1;
  }
  return 0;
}

/// The name safetensors uses: "F32", "BF16", …
constexpr std::string_view dtype_name(DType type) {
  switch (type) {
    case DType::f64:
      return "F64";
    case DType::f32:
      return "F32";
    case DType::f16:
      return "F16";
    case DType::bf16:
      return "BF16";
    case DType::i64:
      return "I64";
    case DType::i32:
      return "I32";
    case DType::i16:
      return "I16";
    case DType::i8:
      return "I8";
    case DType::u8:
      return "U8";
    case DType::boolean:
      return "BOOL";
  }
  return "?";
}

template <class T>
struct DTypeOf;

template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::f64;
};

template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::f32;
};

template <>
struct DTypeOf<bf16> {
  static constexpr DType value = DType::bf16;
};

template <>
struct DTypeOf<std::int64_t> {
  static constexpr DType value = DType::i64;
};

template <>
struct DTypeOf<std::int32_t> {
  static constexpr DType value = DType::i32;
};

template <>
struct DTypeOf<std::uint8_t> {
  static constexpr DType value = DType::u8;
};
template <class T>
inline constexpr DType dtype_of = DTypeOf<T>::value;

/// The compute types C of nn and models.
template <class T>
concept ComputeType = std::same_as<T, bf16> || std::same_as<T, float> || std::same_as<T, double>;

/// Param<C>: the type of adapters, routers, gradients of parameters, moments, and of the arithmetic inside an op.
template <ComputeType C>
using Param = std::conditional_t<std::same_as<C, double>, double, float>;

}  // namespace perft::inline PERFT_ABI

#pragma once
// One tensor inside a mapped file, and copying its values out as a chosen type.

#include <bit>          // endianness
#include <cmath>        // std::isnan
#include <cstddef>      // std::byte
#include <cstdint>      // fixed-width integers
#include <cstring>      // std::memcpy
#include <memory>       // shared mappings
#include <optional>     // unknown dtypes, overflow
#include <string>       // names
#include <string_view>  // names
#include <type_traits>  // std::is_floating_point_v
#include <vector>       // shapes, values

#include "perft/core/dtype.hpp"
#include "perft/core/error.hpp"
#include "perft/core/vec/half.hpp"
#include "perft/io/json.hpp"  // in_quotes
#include "perft/io/mapped_file.hpp"

namespace perft::inline PERFT_ABI {

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian and used in place");

/// One tensor inside a mapped file. `data` may have any alignment (the data section starts at any byte offset): copy
/// out (std::memcpy, read_as) or check the alignment before forming a T*.
struct TensorEntry {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;  // [] is a scalar
  const std::byte* data = nullptr;
  std::size_t bytes = 0;
  std::shared_ptr<const MappedFile> file;  // keeps `data` valid
  std::string path;                        // the file as opened, for messages

  std::int64_t elements() const { return static_cast<std::int64_t>(bytes / dtype_size(dtype)); }
};

/// The DType safetensors calls `name`, if perft has it.
inline std::optional<DType> dtype_from_name(std::string_view name) {
  for (const DType type : {DType::f64, DType::f32, DType::f16, DType::bf16, DType::i64, DType::i32, DType::i16,
                           DType::i8, DType::u8, DType::boolean}) {
    if (dtype_name(type) == name) {
      return type;
    }
  }
  return std::nullopt;
}

/// product(shape) · size of one element, or nothing if it does not fit 63 bits. No negative extents.
inline std::optional<std::int64_t> tensor_bytes(const std::vector<std::int64_t>& shape, DType dtype) {
  auto total = static_cast<std::int64_t>(dtype_size(dtype));
  for (const std::int64_t extent : shape) {
    if (__builtin_mul_overflow(total, extent, &total)) {
      return std::nullopt;
    }
  }
  return total;
}

namespace detail {

template <class T>
inline constexpr bool is_real = std::is_floating_point_v<T> || std::is_same_v<T, bf16>;

/// Copies an array of S (at any alignment) out as T; false at the first value that T cannot hold, its index in `at`.
template <class S, class T>
bool widen(const std::byte* from, std::vector<T>& to, std::size_t& at) {
  if constexpr (std::is_same_v<S, T>) {
    if (!to.empty()) {
      std::memcpy(to.data(), from, to.size() * sizeof(T));
    }
    return true;
  } else {
    for (at = 0; at < to.size(); ++at) {
      S value;
      std::memcpy(&value, from + at * sizeof(S), sizeof(S));
      if constexpr (is_real<T>) {
        const auto wide = static_cast<double>(value);
        to[at] = static_cast<T>(wide);
        if (!std::isnan(wide) && static_cast<double>(to[at]) != wide) {
          return false;
        }
      } else {
        to[at] = static_cast<T>(value);
        if (static_cast<std::int64_t>(to[at]) != std::int64_t{value}) {
          return false;
        }
      }
    }
    return true;
  }
}

}  // namespace detail

/// A tensor's values as T, converted exactly: F64, F32, F16, BF16 to double, float or bf16; I64, I32, I16, I8, U8, BOOL
/// to an integer type. Throws IoError if the kinds differ (real and integer), or names the first element that T cannot
/// hold. A NaN stays a NaN.
template <class T>
std::vector<T> read_as(const TensorEntry& tensor) {
  static_assert(detail::is_real<T> || (std::is_integral_v<T> && !std::is_same_v<T, bool>));
  std::vector<T> values(static_cast<std::size_t>(tensor.elements()));
  std::size_t at = 0;
  bool exact = false;
  bool right_kind = true;
  const auto convert = [&]<class S>() { exact = detail::widen<S>(tensor.data, values, at); };
  if constexpr (detail::is_real<T>) {
    switch (tensor.dtype) {
      case DType::f64:
        convert.template operator()<double>();
        break;
      case DType::f32:
        convert.template operator()<float>();
        break;
      case DType::f16:
        convert.template operator()<f16>();
        break;
      case DType::bf16:
        convert.template operator()<bf16>();
        break;
      default:
        right_kind = false;
    }
  } else {
    switch (tensor.dtype) {
      case DType::i64:
        convert.template operator()<std::int64_t>();
        break;
      case DType::i32:
        convert.template operator()<std::int32_t>();
        break;
      case DType::i16:
        convert.template operator()<std::int16_t>();
        break;
      case DType::i8:
        convert.template operator()<std::int8_t>();
        break;
      case DType::u8:
      case DType::boolean:
        convert.template operator()<std::uint8_t>();
        break;
      default:
        right_kind = false;
    }
  }
  constexpr const char* wanted = detail::is_real<T> ? "a floating-point" : "an integer";
  check<IoError>(right_kind, tensor.path, ": tensor ", in_quotes(tensor.name), ": dtype is ", dtype_name(tensor.dtype),
                 ", expected ", wanted, " dtype; write the tensor as one");
  check<IoError>(exact, tensor.path, ": tensor ", in_quotes(tensor.name), ": element ", at, " (",
                 dtype_name(tensor.dtype), ") cannot be held exactly in ", 8 * sizeof(T),
                 " bits, expected values in range; write a narrower dtype");
  return values;
}

}  // namespace perft::inline PERFT_ABI

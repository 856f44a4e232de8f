#pragma once
// Reading elements of a run-time dtype from bytes of any alignment.

#include <cstddef>  // std::byte
#include <cstdint>  // fixed-width integers
#include <cstring>  // std::memcpy

#include "perft/core/config.hpp"
#include "perft/core/dtype.hpp"
#include "perft/core/error.hpp"
#include "perft/core/vec.hpp"

namespace perft::inline PERFT_ABI {

namespace vec {

namespace detail {

template <class S, class D>
void convert_unaligned(const std::byte* src, D* dst, std::int64_t n) {
  if constexpr (std::same_as<S, D>) {
    if (n > 0) {
      std::memcpy(dst, src, static_cast<std::size_t>(n) * sizeof(S));
    }
    return;
  }
  if (reinterpret_cast<std::uintptr_t>(src) % alignof(S) == 0) {
    convert(reinterpret_cast<const S*>(src), dst, n);
    return;
  }
  constexpr std::int64_t chunk = 256;
  S aligned[chunk];
  for (std::int64_t i = 0; i < n; i += chunk) {
    const std::int64_t count = n - i < chunk ? n - i : chunk;
    std::memcpy(aligned, src + i * static_cast<std::int64_t>(sizeof(S)), static_cast<std::size_t>(count) * sizeof(S));
    convert(aligned, dst + i, count);
  }
}

}  // namespace detail

/// dst[i] = element i of the n elements of type `dtype` (f64, f32, f16, bf16) at src, which may have any alignment.
/// `through_bf16` rounds to bf16 on the way. UnsupportedError for other dtypes.
template <class D>
void convert_bytes(const void* src, DType dtype, D* dst, std::int64_t n, bool through_bf16 = false) {
  const auto* bytes = static_cast<const std::byte*>(src);
  switch (dtype) {
    case DType::f64:
      detail::convert_unaligned<double>(bytes, dst, n);
      break;
    case DType::f32:
      detail::convert_unaligned<float>(bytes, dst, n);
      break;
    case DType::f16:
      detail::convert_unaligned<f16>(bytes, dst, n);
      break;
    case DType::bf16:
      detail::convert_unaligned<bf16>(bytes, dst, n);
      return;
    default:
      fail<UnsupportedError>("cannot read numbers of type ", dtype_name(dtype), ", expected F64, F32, F16 or BF16");
  }
  if constexpr (!std::same_as<D, bf16>) {
    if (through_bf16) {
      round_to_bf16(dst, n);
    }
  }
}

}  // namespace vec

}  // namespace perft::inline PERFT_ABI

#pragma once
// FrozenMatrix: a base weight [out, in] read straight from the mapped checkpoint, whatever its storage format.

#include <algorithm>  // std::min
#include <cstddef>    // std::byte
#include <cstdint>    // extents
#include <cstring>    // std::memcpy from unaligned bytes
#include <memory>     // the mapping's owner
#include <string>     // hub name
#include <utility>    // std::move

#include "perft/core/device.hpp"
#include "perft/core/dtype.hpp"
#include "perft/core/error.hpp"
#include "perft/core/vec.hpp"

namespace perft::inline PERFT_ABI {

namespace detail {

template <class Stored, class P>
void widen_typed(const std::byte* bytes, P* out, std::int64_t n) {
  constexpr std::int64_t kChunk = 512;  // through an aligned buffer: the file's bytes may start anywhere
  Stored buffer[kChunk];
  for (std::int64_t at = 0; at < n; at += kChunk) {
    const std::int64_t count = std::min(kChunk, n - at);
    std::memcpy(buffer, bytes + at * static_cast<std::int64_t>(sizeof(Stored)),
                static_cast<std::size_t>(count) * sizeof(Stored));
    vec::convert(buffer, out + at, count);
  }
}

}  // namespace detail

/// out[i] = element i of stored floats (bf16, f16, f32, f64) at any address, converted to P. Throws UnsupportedError on
/// other formats.
template <class P>
void widen_storage(const void* data, DType dtype, P* out, std::int64_t n) {
  const auto* bytes = static_cast<const std::byte*>(data);
  switch (dtype) {
    case DType::bf16:
      return detail::widen_typed<bf16>(bytes, out, n);
    case DType::f16:
      return detail::widen_typed<f16>(bytes, out, n);
    case DType::f32:
      return detail::widen_typed<float>(bytes, out, n);
    case DType::f64:
      return detail::widen_typed<double>(bytes, out, n);
    default:
      fail<UnsupportedError>("weights of type ", dtype_name(dtype), ", expected BF16, F16, F32 or F64");
  }
}

/// Rows are contiguous; the bytes may start at any address (safetensors does not align). The format is a run-time fact
/// of the file; GEMM widens it panel by panel, so no whole-matrix copy ever exists. There is no way to ask it for a
/// gradient.
template <class Device = Cpu>
class FrozenMatrix {
 public:
  FrozenMatrix() = default;

  /// dtype: bf16, f16, f32 or f64. `owner` keeps `data` alive.
  FrozenMatrix(std::string name, const void* data, DType dtype, std::int64_t rows, std::int64_t cols,
               std::shared_ptr<const void> owner)
      : name_(std::move(name)), data_(data), dtype_(dtype), rows_(rows), cols_(cols), owner_(std::move(owner)) {}

  const std::string& name() const { return name_; }

  DType dtype() const { return dtype_; }

  std::int64_t rows() const { return rows_; }

  std::int64_t cols() const { return cols_; }

  const void* data() const { return data_; }

  bool defined() const { return data_ != nullptr; }

  std::size_t bytes() const { return static_cast<std::size_t>(rows_ * cols_) * dtype_size(dtype_); }

 private:
  std::string name_;
  const void* data_ = nullptr;
  DType dtype_ = DType::f32;
  std::int64_t rows_ = 0;
  std::int64_t cols_ = 0;
  std::shared_ptr<const void> owner_;
};

}  // namespace perft::inline PERFT_ABI

#pragma once
// FrozenMatrix: a base weight [out, in] read straight from the mapped checkpoint, whatever its storage format.

#include <cstddef>  // std::size_t
#include <cstdint>  // extents
#include <memory>   // the mapping's owner
#include <string>   // hub name
#include <utility>  // std::move

#include "perft/core/device.hpp"
#include "perft/core/dtype.hpp"

namespace perft::inline PERFT_ABI {

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

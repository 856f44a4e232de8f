#pragma once
// Shapes of rank at most 5, stored inline.

#include <array>             // inline storage
#include <cstddef>           // std::size_t
#include <cstdint>           // std::int64_t
#include <initializer_list>  // literals
#include <span>              // conversion from lists

#include "perft/core/error.hpp"

namespace perft::inline PERFT_ABI {

/// Up to 5 extents (or strides), in elements. No heap.
class Shape {
 public:
  static constexpr std::size_t kMaxRank = 5;

  Shape() = default;

  Shape(std::initializer_list<std::int64_t> extents) : Shape(std::span(extents.begin(), extents.size())) {}

  explicit Shape(std::span<const std::int64_t> extents) {
    check<ShapeError>(extents.size() <= kMaxRank, "shape: rank is ", extents.size(), ", expected at most ", kMaxRank);
    for (const std::int64_t extent : extents) {
      check<ShapeError>(extent >= 0, "shape: extents ", extents, " hold a negative number");
      extents_[rank_++] = extent;
    }
  }

  std::size_t rank() const { return rank_; }

  std::int64_t operator[](std::size_t dim) const { return extents_[dim]; }

  std::int64_t& operator[](std::size_t dim) { return extents_[dim]; }

  const std::int64_t* begin() const { return extents_.data(); }

  const std::int64_t* end() const { return extents_.data() + rank_; }

  std::size_t size() const { return rank_; }

  const std::int64_t* data() const { return extents_.data(); }

  /// Product of the extents; 1 for rank 0.
  std::int64_t numel() const {
    std::int64_t n = 1;
    for (const std::int64_t extent : *this) {
      n *= extent;
    }
    return n;
  }

  bool operator==(const Shape& other) const {
    if (rank_ != other.rank_) {
      return false;
    }
    for (std::size_t i = 0; i < rank_; ++i) {
      if (extents_[i] != other.extents_[i]) {
        return false;
      }
    }
    return true;
  }

 private:
  std::array<std::int64_t, kMaxRank> extents_{};
  std::size_t rank_ = 0;
};

/// Row-major strides of a contiguous tensor.
inline Shape contiguous_strides(const Shape& shape) {
  Shape strides = shape;
  std::int64_t step = 1;
  for (std::size_t i = shape.rank(); i-- > 0;) {
    strides[i] = step;
    step *= shape[i];
  }
  return strides;
}

}  // namespace perft::inline PERFT_ABI

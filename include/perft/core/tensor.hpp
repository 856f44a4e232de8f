#pragma once
// Tensor<T, Device>: a shared storage, an offset, a shape and strides. Copies share; clone() copies.

#include <algorithm>    // std::copy_n, std::fill_n
#include <cstdint>      // std::int64_t
#include <memory>       // shared storage
#include <span>         // contents
#include <string>       // names of mapped storage
#include <type_traits>  // std::is_trivially_copyable_v
#include <vector>       // from lists

#include "perft/core/device.hpp"
#include "perft/core/dtype.hpp"
#include "perft/core/error.hpp"
#include "perft/core/parallel.hpp"
#include "perft/core/pool.hpp"
#include "perft/core/shape.hpp"
#include "perft/core/view.hpp"

namespace perft::inline PERFT_ABI {

/// Element type and device are types; rank (≤ 5) and shape are values. A default-constructed tensor is undefined
/// (`defined()` is false), which is how "no gradient" and "not asked for" are said.
template <class T, class Device = Cpu>
class Tensor {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  using value_type = T;
  using device_type = Device;

  Tensor() = default;

  /// Uninitialised, contiguous, owned.
  static Tensor empty(const Shape& shape) {
    Tensor t;
    t.shape_ = shape;
    t.strides_ = contiguous_strides(shape);
    t.storage_ = DeviceMemory<Device>::allocate(static_cast<std::size_t>(shape.numel()) * sizeof(T));
    t.data_ = static_cast<T*>(t.storage_.get());
    t.writable_ = true;
    return t;
  }

  static Tensor zeros(const Shape& shape) requires std::is_same_v<Device, Cpu> { return full(shape, T{}); }

  static Tensor full(const Shape& shape, T value) requires std::is_same_v<Device, Cpu> {
    Tensor t = empty(shape);
    constexpr std::int64_t grain = (std::int64_t{1} << 20) / static_cast<std::int64_t>(sizeof(T));
    parallel_for(shape.numel(), grain,
                 [&](std::int64_t begin, std::int64_t end) { std::fill_n(t.data_ + begin, end - begin, value); });
    return t;
  }

  /// A copy of `values` in row-major order; their number must be the shape's.
  static Tensor from(std::span<const T> values, const Shape& shape) requires std::is_same_v<Device, Cpu> {
    check<ShapeError>(static_cast<std::int64_t>(values.size()) == shape.numel(), "tensor: ", values.size(),
                      " values for shape ", shape);
    Tensor t = empty(shape);
    std::copy_n(values.data(), values.size(), t.data_);
    return t;
  }

  /// Read-only elements that `owner` keeps alive (a mapped file). `data` must be aligned for T. `name` is what
  /// mutable_data() complains about.
  static Tensor mapped(const T* data, const Shape& shape, std::shared_ptr<const void> owner, std::string name) {
    Tensor t;
    t.shape_ = shape;
    t.strides_ = contiguous_strides(shape);
    t.storage_ = std::shared_ptr<void>(new std::shared_ptr<const void>(std::move(owner)),
                                       [](void* p) { delete static_cast<std::shared_ptr<const void>*>(p); });
    t.data_ = const_cast<T*>(data);  // guarded by writable_
    t.name_ = std::make_shared<const std::string>(std::move(name));
    return t;
  }

  bool defined() const { return storage_ != nullptr; }

  const Shape& shape() const { return shape_; }

  const Shape& strides() const { return strides_; }

  std::size_t rank() const { return shape_.rank(); }

  std::int64_t size(std::size_t dim) const { return shape_[dim]; }

  std::int64_t stride(std::size_t dim) const { return strides_[dim]; }

  /// 0 for an undefined tensor, although the product over its rank 0 is 1: it holds nothing and has no bytes.
  std::int64_t numel() const { return defined() ? shape_.numel() : 0; }

  std::size_t bytes() const { return static_cast<std::size_t>(numel()) * sizeof(T); }

  bool writable() const { return writable_; }

  /// True if no other tensor shares the storage: only then may an accumulator add in place.
  bool unique() const { return storage_.use_count() == 1; }

  const T* data() const { return data_; }

  /// Throws if the storage is a read-only mapping, naming it.
  T* mutable_data() {
    check<UnsupportedError>(writable_ || !defined(), "tensor '", name_ ? *name_ : std::string("?"),
                            "' is a read-only mapping of its file; clone() it to write");
    return data_;
  }

  bool contiguous() const {
    std::int64_t step = 1;
    for (std::size_t i = shape_.rank(); i-- > 0;) {
      if (shape_[i] != 1 && strides_[i] != step) {
        return false;
      }
      step *= shape_[i];
    }
    return true;
  }

  /// All elements in order; the tensor must be contiguous.
  std::span<const T> span() const {
    check<ShapeError>(contiguous(), "tensor: span() of a strided view of shape ", shape_, "; clone() it first");
    return {data_, static_cast<std::size_t>(numel())};
  }

  std::span<T> mutable_span() {
    check<ShapeError>(contiguous(), "tensor: mutable_span() of a strided view of shape ", shape_);
    return {mutable_data(), static_cast<std::size_t>(numel())};
  }

  TensorView<const T> view() const { return make_view<const T>(data_); }

  TensorView<T> mutable_view() { return make_view<T>(mutable_data()); }

  /// Same elements, other extents; contiguous tensors only; shares storage.
  Tensor reshape(const Shape& shape) const {
    check<ShapeError>(shape.numel() == numel() && contiguous(), "reshape: ", shape_, " with strides ", strides_,
                      " cannot become ", shape);
    Tensor t = *this;
    t.shape_ = shape;
    t.strides_ = contiguous_strides(shape);
    return t;
  }

  /// Elements [begin, end) of one dimension; shares storage.
  Tensor slice(std::size_t dim, std::int64_t begin, std::int64_t end) const {
    check<ShapeError>(dim < rank() && 0 <= begin && begin <= end && end <= shape_[dim], "slice: [", begin, ", ", end,
                      ") of dimension ", dim, " of ", shape_);
    Tensor t = *this;
    t.data_ += begin * strides_[dim];
    t.shape_[dim] = end - begin;
    return t;
  }

  /// Two dimensions exchanged; shares storage.
  Tensor transpose(std::size_t a, std::size_t b) const {
    check<ShapeError>(a < rank() && b < rank(), "transpose: dimensions ", a, " and ", b, " of ", shape_);
    Tensor t = *this;
    std::swap(t.shape_[a], t.shape_[b]);
    std::swap(t.strides_[a], t.strides_[b]);
    return t;
  }

  /// An owned, contiguous copy.
  Tensor clone() const requires std::is_same_v<Device, Cpu> {
    Tensor t = empty(shape_);
    if (contiguous()) {
      std::copy_n(data_, numel(), t.data_);
    } else {
      copy_strided(data_, t.data_, 0);
    }
    return t;
  }

 private:
  template <class U>
  TensorView<U> make_view(U* data) const {
    TensorView<U> v{data, static_cast<int32_t>(rank()), {1, 1, 1, 1, 1}, {0, 0, 0, 0, 0}};
    for (std::size_t i = 0; i < rank(); ++i) {
      v.size[i] = shape_[i];
      v.stride[i] = strides_[i];
    }
    return v;
  }

  T* copy_strided(const T* from, T* to, std::size_t dim) const {
    if (dim == rank()) {
      *to = *from;
      return to + 1;
    }
    if (dim + 1 == rank() && strides_[dim] == 1) {
      return std::copy_n(from, shape_[dim], to);
    }
    for (std::int64_t i = 0; i < shape_[dim]; ++i) {
      to = copy_strided(from + i * strides_[dim], to, dim + 1);
    }
    return to;
  }

  std::shared_ptr<void> storage_;
  T* data_ = nullptr;
  Shape shape_;
  Shape strides_;
  bool writable_ = false;
  std::shared_ptr<const std::string> name_;
};

}  // namespace perft::inline PERFT_ABI

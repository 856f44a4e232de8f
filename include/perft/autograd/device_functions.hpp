#pragma once
// What the tape and parameters need of a device beside accumulate(): free functions, overloaded like those of the ops.

#include "perft/core/tensor.hpp"

namespace perft::inline PERFT_ABI {

/// An owned, contiguous copy.
template <class T>
Tensor<T> copy_of(const Tensor<T>& x) {
  return x.clone();
}

/// Owned zeros of x's shape.
template <class T>
Tensor<T> zeros_like(const Tensor<T>& x) {
  return Tensor<T>::zeros(x.shape());
}

}  // namespace perft::inline PERFT_ABI

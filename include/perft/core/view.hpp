#pragma once
// TensorView: what kernels receive. Plain data, no std types, so that device compilers can include it cheaply.

#include <stdint.h>  // int64_t without namespace std

#include "perft/core/config.hpp"

namespace perft::inline PERFT_ABI {

/// Element (i0, i1, …) is data[i0 * stride[0] + i1 * stride[1] + …]; unused extents are 1, unused strides 0.
template <class T>
struct TensorView {
  T* data;
  int32_t rank;
  int64_t size[5];
  int64_t stride[5];
};

}  // namespace perft::inline PERFT_ABI

#pragma once
// What tape, parameters and models need of a device beside accumulate(): free functions, overloaded like those of the
// ops.

#include <cstddef>  // std::byte
#include <cstdint>  // extents

#include "perft/core/frozen_matrix.hpp"
#include "perft/core/parallel.hpp"
#include "perft/core/tensor.hpp"
#include "perft/core/vec/bytes.hpp"

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

/// x in the memory of the device that the tag names; x itself if it lies there.
template <class T>
Tensor<T> to_device(Tensor<T> x, Cpu) {
  return x;
}

/// The matrix in the memory of the device that the tag names; on Cpu it stays the mapping it is.
inline FrozenMatrix<Cpu> to_device(FrozenMatrix<Cpu> matrix, Cpu) {
  return matrix;
}

/// x where files are written from; x itself if it lies there.
template <class T>
Tensor<T> to_host(Tensor<T> x) {
  return x;
}

/// An owned [out, in] in P with the matrix's numbers, exactly.
template <class P>
Tensor<P> widened_copy(const FrozenMatrix<Cpu>& matrix) {
  Tensor<P> value = Tensor<P>::empty({matrix.rows(), matrix.cols()});
  const auto* from = static_cast<const std::byte*>(matrix.data());
  const auto size = static_cast<std::int64_t>(dtype_size(matrix.dtype()));
  P* to = value.mutable_data();
  parallel_for(value.numel(), std::int64_t{1} << 16, [&](std::int64_t begin, std::int64_t end) {
    vec::convert_bytes(from + begin * size, matrix.dtype(), to + begin, end - begin);
  });
  return value;
}

}  // namespace perft::inline PERFT_ABI

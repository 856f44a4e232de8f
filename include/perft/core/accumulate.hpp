#pragma once
// sum += x on whole tensors: how gradients that arrive along several paths meet.

#include <cstdint>  // std::int64_t

#include "perft/core/parallel.hpp"
#include "perft/core/tensor.hpp"

namespace perft::inline PERFT_ABI {

/// sum[i] += x[i], rounded to T. Both contiguous and of one shape, else ShapeError. bf16 adds in float.
template <class T>
void accumulate(Tensor<T, Cpu>& sum, const Tensor<T, Cpu>& x) {
  check<ShapeError>(sum.shape() == x.shape(), "accumulate: x is ", x.shape(), ", expected ", sum.shape());
  T* to = sum.mutable_span().data();
  const T* from = x.span().data();
  // 2^15 elements: below this waking a worker costs more than the loop.
  parallel_for(sum.numel(), std::int64_t{1} << 15, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      to[i] = static_cast<T>(to[i] + from[i]);
    }
  });
}

}  // namespace perft::inline PERFT_ABI

#pragma once
// The kernel for a compute type on the instruction set in use.

#include <concepts>  // std::same_as

#include "perft/core/config.hpp"
#include "perft/core/cpu_features.hpp"
#include "perft/core/dtype.hpp"
#include "perft/core/gemm/kernel.hpp"

namespace perft::inline PERFT_ABI {

namespace gemm::detail {

/// The kernel that multiplies in E for double and float.
template <class E>
const Kernel<E, E>& kernel_of() {
  static const Kernel<E, E> portable = portable_kernel<E>();
  return portable;
}

/// Calls body with the kernel for C.
template <class C, class Body>
void with_kernel(Body&& body) {
  if constexpr (std::same_as<C, bf16>) {
    Kernel<float, float> kernel = kernel_of<float>();
    kernel.through_bf16 = true;
    body(kernel);
  } else {
    body(kernel_of<C>());
  }
}

}  // namespace gemm::detail

}  // namespace perft::inline PERFT_ABI

#pragma once
// The kernel for a compute type on the instruction set in use.

#include <concepts>     // std::same_as
#include <type_traits>  // std::conditional_t

#include "perft/core/config.hpp"
#include "perft/core/cpu_features.hpp"
#include "perft/core/dtype.hpp"
#include "perft/core/gemm/amx.hpp"
#include "perft/core/gemm/avx2.hpp"
#include "perft/core/gemm/avx512.hpp"
#include "perft/core/gemm/kernel.hpp"

namespace perft::inline PERFT_ABI {

namespace gemm::detail {

/// The kernel that multiplies in E, double or float.
template <class E>
Kernel<E, E> kernel_of() {
#if defined(__x86_64__)
  const Isa isa = active_isa();
  if (isa >= Isa::avx512) {
    using V = std::conditional_t<std::same_as<E, double>, avx512::F64, avx512::F32>;
    return avx512::make_kernel<V>(256);
  }
  if (isa >= Isa::avx2) {
    using V = std::conditional_t<std::same_as<E, double>, avx2::F64, avx2::F32>;
    return avx2::make_kernel<V>(256);
  }
#endif
  return portable_kernel<E>();
}

/// Calls body with the kernel for C.
template <class C, class Body>
void with_kernel(Body&& body) {
  if constexpr (std::same_as<C, bf16>) {
#if defined(__x86_64__)
    if (active_isa() >= Isa::amx) {
      body(amx::make_kernel());
      return;
    }
    if (active_isa() >= Isa::avx512_bf16) {
      body(avx512_bf16::make_kernel<avx512_bf16::Bf16>(512));
      return;
    }
#endif
    Kernel<float, float> kernel = kernel_of<float>();
    kernel.through_bf16 = true;
    body(kernel);
  } else {
    body(kernel_of<C>());
  }
}

}  // namespace gemm::detail

}  // namespace perft::inline PERFT_ABI

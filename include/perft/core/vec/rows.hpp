#pragma once
// The float row kernels of vec.hpp for each instruction set, and the table that picks one at run time.

#include <cstdint>  // fixed-width integers
#include <cstring>  // std::memcpy: unaligned loads and stores
#include <limits>   // infinity

#include "perft/core/config.hpp"
#include "perft/core/cpu_features.hpp"
#include "perft/core/dtype.hpp"
#include "perft/core/rng.hpp"
#include "perft/core/vec/adamw_factors.hpp"
#include "perft/core/vec/half.hpp"

namespace perft::inline PERFT_ABI {

namespace vec::detail {

/// One implementation of every float row kernel; vec.hpp documents them. The sources of conversions may be unaligned.
struct RowKernels {
  float (*dot)(const float*, const float*, std::int64_t);
  void (*multi_dot)(const float*, const float*, std::int64_t, std::int64_t, std::int64_t, float*);
  float (*max)(const float*, std::int64_t);
  void (*axpy)(float, const float*, float*, std::int64_t);
  void (*multi_axpy)(const float*, const float*, std::int64_t, std::int64_t, std::int64_t, float*);
  void (*sum_outer)(const float* const*, const float* const*, std::int64_t, float*, std::int64_t, std::int64_t,
                    std::int64_t);
  void (*scale)(float, float*, std::int64_t);
  void (*add)(const float*, const float*, float*, std::int64_t);
  void (*mul)(const float*, const float*, float*, std::int64_t);
  float (*exp_sum)(const float*, float, float*, std::int64_t);
  void (*silu_mul)(const float*, const float*, float*, std::int64_t);
  void (*silu_mul_backward)(const float*, const float*, const float*, float*, float*, std::int64_t);
  std::int64_t (*philox_dropout)(PhiloxKey, const std::uint32_t*, std::uint32_t, float, std::int64_t, float*);
  void (*bf16_to_float)(const void*, float*, std::int64_t);
  void (*float_to_bf16)(const void*, bf16*, std::int64_t);
  void (*round_to_bf16)(float*, std::int64_t);
  void (*half_to_float)(const void*, float*, std::int64_t);
  void (*adamw)(float*, const float*, float*, float*, const AdamWFactors<float>&, std::int64_t);
};

namespace portable {
inline constexpr int vector_bytes = 16;
#if defined(__SSE__)
#define PERFT_ROWS_SQRT(x) __builtin_ia32_sqrtps(x)
#endif
#include "perft/core/vec/rows.inc"
#undef PERFT_ROWS_SQRT
}  // namespace portable

}  // namespace vec::detail

}  // namespace perft::inline PERFT_ABI

#if defined(__x86_64__)

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")

namespace perft::inline PERFT_ABI {

namespace vec::detail::avx2 {
inline constexpr int vector_bytes = 32;
#define PERFT_ROWS_SQRT(x) __builtin_ia32_sqrtps256(x)
#include "perft/core/vec/rows.inc"
#undef PERFT_ROWS_SQRT
}  // namespace vec::detail::avx2

}  // namespace perft::inline PERFT_ABI

#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,f16c")

namespace perft::inline PERFT_ABI {

namespace vec::detail::avx512 {
inline constexpr int vector_bytes = 64;
#define PERFT_ROWS_SQRT(x) __builtin_ia32_sqrtps512_mask(x, x, static_cast<unsigned short>(-1), 4)
#include "perft/core/vec/rows.inc"
#undef PERFT_ROWS_SQRT
}  // namespace vec::detail::avx512

}  // namespace perft::inline PERFT_ABI

#pragma GCC pop_options

#endif

namespace perft::inline PERFT_ABI {

namespace vec::detail {

/// The kernels for the instruction set in use.
inline const RowKernels& rows() {
#if defined(__x86_64__)
  const Isa isa = active_isa();
  if (isa >= Isa::avx512) [[likely]] {
    return avx512::kernels;
  }
  if (isa == Isa::avx2) {
    return avx2::kernels;
  }
#endif
  return portable::kernels;
}

}  // namespace vec::detail

}  // namespace perft::inline PERFT_ABI

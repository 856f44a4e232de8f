#pragma once
// Row kernels: the arithmetic on contiguous rows that every op is made of. No call uses threads, and each reduction has
// an order fixed by its length alone. Pointers need only their element type's alignment.

#include <array>    // Philox counters
#include <cmath>    // std::exp, std::sqrt
#include <cstddef>  // std::size_t
#include <cstdint>  // fixed-width integers
#include <cstring>  // std::memmove
#include <limits>   // infinity

#include "perft/core/config.hpp"
#include "perft/core/dtype.hpp"
#include "perft/core/rng.hpp"
#include "perft/core/vec/adamw_factors.hpp"
#include "perft/core/vec/half.hpp"
#include "perft/core/vec/rows.hpp"

namespace perft::inline PERFT_ABI {

namespace vec {

/// dst[i] = src[i], rounded to nearest even where D is narrower. S, D among bf16, float, double; S also f16.
template <class S, class D>
void convert(const S* src, D* dst, std::int64_t n) {
  if constexpr (std::same_as<S, D>) {
    if (n > 0) {
      std::memmove(dst, src, static_cast<std::size_t>(n) * sizeof(S));
    }
  } else if constexpr (std::same_as<S, bf16> && std::same_as<D, float>) {
    detail::rows().bf16_to_float(src, dst, n);
  } else if constexpr (std::same_as<S, float> && std::same_as<D, bf16>) {
    detail::rows().float_to_bf16(src, dst, n);
  } else if constexpr (std::same_as<S, f16> && std::same_as<D, float>) {
    detail::rows().half_to_float(src, dst, n);
  } else {
    for (std::int64_t i = 0; i < n; ++i) {
      if constexpr (std::same_as<S, double>) {
        dst[i] = static_cast<D>(src[i]);
      } else {
        dst[i] = static_cast<D>(static_cast<float>(src[i]));
      }
    }
  }
}

/// x[i] = the bf16 value nearest to x[i].
template <class T>
void round_to_bf16(T* x, std::int64_t n) {
  if constexpr (std::same_as<T, float>) {
    detail::rows().round_to_bf16(x, n);
  } else {
    for (std::int64_t i = 0; i < n; ++i) {
      x[i] = static_cast<T>(static_cast<float>(bf16(static_cast<float>(x[i]))));
    }
  }
}

/// Σ a[i]·b[i].
template <class T>
T dot(const T* a, const T* b, std::int64_t n) {
  if constexpr (std::same_as<T, float>) {
    return detail::rows().dot(a, b, n);
  } else {
    T s = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      s += a[i] * b[i];
    }
    return s;
  }
}

/// y += alpha·x.
template <class T>
void axpy(T alpha, const T* x, T* y, std::int64_t n) {
  if constexpr (std::same_as<T, float>) {
    detail::rows().axpy(alpha, x, y, n);
  } else {
    for (std::int64_t i = 0; i < n; ++i) {
      y[i] += alpha * x[i];
    }
  }
}

/// x *= alpha.
template <class T>
void scale(T alpha, T* x, std::int64_t n) {
  if constexpr (std::same_as<T, float>) {
    detail::rows().scale(alpha, x, n);
  } else {
    for (std::int64_t i = 0; i < n; ++i) {
      x[i] *= alpha;
    }
  }
}

/// out = a + b; out may be a or b.
template <class T>
void add(const T* a, const T* b, T* out, std::int64_t n) {
  if constexpr (std::same_as<T, float>) {
    detail::rows().add(a, b, out, n);
  } else {
    for (std::int64_t i = 0; i < n; ++i) {
      out[i] = a[i] + b[i];
    }
  }
}

/// out = a·b elementwise; out may be a or b.
template <class T>
void mul(const T* a, const T* b, T* out, std::int64_t n) {
  if constexpr (std::same_as<T, float>) {
    detail::rows().mul(a, b, out, n);
  } else {
    for (std::int64_t i = 0; i < n; ++i) {
      out[i] = a[i] * b[i];
    }
  }
}

/// Σ x[i]².
template <class T>
T sum_squares(const T* x, std::int64_t n) {
  return dot(x, x, n);
}

/// max x[i]; −∞ if n = 0, NaN if any element is NaN.
template <class T>
T max(const T* x, std::int64_t n) {
  if constexpr (std::same_as<T, float>) {
    return detail::rows().max(x, n);
  } else {
    T m = -std::numeric_limits<T>::infinity();
    for (std::int64_t i = 0; i < n; ++i) {
      m = x[i] > m || x[i] != x[i] ? x[i] : m;
    }
    return m;
  }
}

/// out[i] = exp(x[i] − shift), returns Σ out[i]; out may be x.
template <class T>
T exp_sum(const T* x, T shift, T* out, std::int64_t n) {
  if constexpr (std::same_as<T, float>) {
    return detail::rows().exp_sum(x, shift, out, n);
  } else {
    T s = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      out[i] = std::exp(x[i] - shift);
      s += out[i];
    }
    return s;
  }
}

/// a = silu(g)·u with silu(g) = g / (1 + exp(−g)); a may be g or u.
template <class T>
void silu_mul(const T* g, const T* u, T* a, std::int64_t n) {
  if constexpr (std::same_as<T, float>) {
    detail::rows().silu_mul(g, u, a, n);
  } else {
    for (std::int64_t i = 0; i < n; ++i) {
      a[i] = g[i] / (T{1} + std::exp(-g[i])) * u[i];
    }
  }
}

/// The gradients of silu_mul: with s = 1/(1 + exp(−g)), dg = da·u·s·(1 + g·(1 − s)) and du = da·g·s. dg and du may
/// overwrite g, u or da.
template <class T>
void silu_mul_backward(const T* g, const T* u, const T* da, T* dg, T* du, std::int64_t n) {
  if constexpr (std::same_as<T, float>) {
    detail::rows().silu_mul_backward(g, u, da, dg, du, n);
  } else {
    for (std::int64_t i = 0; i < n; ++i) {
      const T s = T{1} / (T{1} + std::exp(-g[i]));
      const T grad_g = da[i] * u[i] * s * (T{1} + g[i] * (T{1} - s));
      const T grad_u = da[i] * g[i] * s;
      dg[i] = grad_g;
      du[i] = grad_u;
    }
  }
}

/// out[q] = <x, rows[q·ld …]> for q in [0, count), rows of length n. Bit-equal to dot(x, row) of each row.
template <class T>
void multi_dot(const T* x, const T* rows, std::int64_t ld, std::int64_t count, std::int64_t n, T* out) {
  if constexpr (std::same_as<T, float>) {
    detail::rows().multi_dot(x, rows, ld, count, n, out);
  } else {
    for (std::int64_t q = 0; q < count; ++q) {
      out[q] = dot(x, rows + q * ld, n);
    }
  }
}

/// y += Σ_q coeff[q]·rows[q·ld …], q ascending for each element.
template <class T>
void multi_axpy(const T* coeff, const T* rows, std::int64_t ld, std::int64_t count, std::int64_t n, T* y) {
  if constexpr (std::same_as<T, float>) {
    detail::rows().multi_axpy(coeff, rows, ld, count, n, y);
  } else {
    for (std::int64_t q = 0; q < count; ++q) {
      axpy(coeff[q], rows + q * ld, y, n);
    }
  }
}

/// rows[q·ld …] += coeff[q]·x for q in [0, count).
template <class T>
void rank1_update(const T* coeff, const T* x, T* rows, std::int64_t ld, std::int64_t count, std::int64_t n) {
  for (std::int64_t q = 0; q < count; ++q) {
    axpy(coeff[q], x, rows + q * ld, n);
  }
}

/// rows[q·ld …] += Σ_t coeff[t][q]·x[t] for q in [0, count): the sum starts at zero, t ascends, and it is added at the
/// end. Bit-equal to rank1_update of each entry into zeros, added to rows.
template <class T>
void sum_outer(const T* const* coeff, const T* const* x, std::int64_t entries, T* rows, std::int64_t ld,
               std::int64_t count, std::int64_t n) {
  if constexpr (std::same_as<T, float>) {
    detail::rows().sum_outer(coeff, x, entries, rows, ld, count, n);
  } else {
    for (std::int64_t q = 0; q < count; ++q) {
      for (std::int64_t i = 0; i < n; ++i) {
        T s = 0;
        for (std::int64_t t = 0; t < entries; ++t) {
          s += coeff[t][q] * x[t][i];
        }
        rows[q * ld + i] += s;
      }
    }
  }
}

/// One AdamW step of n elements, in place: with ĝ = g · gradient, m += take1 (ĝ − m), v = keep2 v + take2 ĝ²,
/// p = p · decay − step_size · m / (√v / root_bias2 + eps).
template <class T>
void adamw(T* p, const T* g, T* m, T* v, const AdamWFactors<T>& f, std::int64_t n) {
  if constexpr (std::same_as<T, float>) {
    detail::rows().adamw(p, g, m, v, f, n);
  } else {
    for (std::int64_t i = 0; i < n; ++i) {
      const T grad = g[i] * f.gradient;
      m[i] += f.take1 * (grad - m[i]);
      v[i] = f.keep2 * v[i] + f.take2 * grad * grad;
      p[i] = p[i] * f.decay - f.step_size * (m[i] / (std::sqrt(v[i]) / f.root_bias2 + f.eps));
    }
  }
}

/// mask_scale[c] = 0 where channel c is dropped, else 1/(1−p). Channel c takes word c mod 4 of
/// philox({counter[0], counter[1], counter[2], c/4}, key) and is dropped iff word < floor(p·2^32). 0 ≤ p < 1.
/// mask_scale[0] is channel `first`, a multiple of 4.
template <class T>
void philox_dropout_row(PhiloxKey key, std::array<std::uint32_t, 3> counter, double p, std::int64_t n, T* mask_scale,
                        std::int64_t first = 0) {
  const std::array<std::uint32_t, 4> start = {counter[0], counter[1], counter[2],
                                              static_cast<std::uint32_t>(first / 4)};
  const auto threshold = static_cast<std::uint32_t>(p * 0x1.0p32);
  const T keep = static_cast<T>(1.0 / (1.0 - p));
  std::int64_t c = 0;
  if constexpr (std::same_as<T, float>) {
    c = detail::rows().philox_dropout(key, start.data(), threshold, keep, n, mask_scale);
  }
  for (; c < n; c += 4) {
    const auto words = philox({start[0], start[1], start[2], start[3] + static_cast<std::uint32_t>(c / 4)}, key);
    for (std::int64_t w = 0; w < 4 && c + w < n; ++w) {
      mask_scale[c + w] = words[static_cast<std::size_t>(w)] < threshold ? T{0} : keep;
    }
  }
}

}  // namespace vec

}  // namespace perft::inline PERFT_ABI

#pragma once
// Row access for ops: a row of compute type C seen in the parameter type P = Param<C>, in which all arithmetic is done.

#include <algorithm>  // std::copy_n
#include <cstdint>    // std::int64_t
#include <type_traits>
#include <vector>  // scratch rows

#include "perft/core/dtype.hpp"
#include "perft/core/vec.hpp"

namespace perft::inline PERFT_ABI {

/// The row itself if C is P, else a widened copy in `scratch` (n elements).
template <class P, class C>
const P* widened(const C* row, P* scratch, std::int64_t n) {
  if constexpr (std::is_same_v<P, C>) {
    return row;
  } else {
    vec::convert(row, scratch, n);
    return scratch;
  }
}

/// Rounds a row of P to C (a copy if they are the same type).
template <class P, class C>
void store_rounded(const P* row, C* out, std::int64_t n) {
  if constexpr (std::is_same_v<P, C>) {
    std::copy_n(row, n, out);
  } else {
    vec::convert(row, out, n);
  }
}

/// Rounds a row of P to the values C can hold, in place.
template <class C, class P>
void round_to(P* row, std::int64_t n) {
  if constexpr (std::is_same_v<C, bf16>) {
    vec::round_to_bf16(row, n);
  }
}

/// Rows per task such that a task touches about 2^14 elements: below that, waking a worker costs more than the work.
inline std::int64_t row_grain(std::int64_t row_length) {
  return std::max<std::int64_t>(1, (std::int64_t{1} << 14) / std::max<std::int64_t>(1, row_length));
}

}  // namespace perft::inline PERFT_ABI

#pragma once
// The numbers that one AdamW step multiplies with.

#include "perft/core/config.hpp"

namespace perft::inline PERFT_ABI {

/// Of a parameter in its t-th step (vec::adamw, train/adamw.hpp).
template <class P>
struct AdamWFactors {
  P gradient;    // clipping
  P take1;       // 1 − β₁
  P keep2;       // β₂
  P take2;       // 1 − β₂
  P step_size;   // lr / (1 − β₁ᵗ)
  P root_bias2;  // √(1 − β₂ᵗ)
  P eps;
  P decay;  // 1 − lr · weight decay
};

}  // namespace perft::inline PERFT_ABI

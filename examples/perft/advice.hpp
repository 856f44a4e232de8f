#pragma once
// What to do about numbers that are not finite, for messages.

#include <concepts>  // std::same_as

#include "perft/core/dtype.hpp"

namespace perft::cli {

/// For numbers that come from the weights as they are. bf16 has the range of f32: only its rounding can be to blame.
template <ComputeType C>
constexpr const char* weights_advice() {
  return std::same_as<C, bf16> ? "check the weights or use --dtype f32" : "check the weights";
}

}  // namespace perft::cli

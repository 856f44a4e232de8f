#pragma once
// The one place where the product that is a gradient with respect to a matrix is ever formed.

#include <string_view>  // parameter names

#include "perft/autograd/parameter.hpp"
#include "perft/core/gemm.hpp"

namespace perft::inline PERFT_ABI {

/// Called with the parameter's name before its gradient is computed; null by default. Tests install one that throws for
/// frozen names: frozen must mean that the product is never formed.
inline void (*weight_gradient_hook)(std::string_view name) = nullptr;

/// The product weight_gradient() runs, for a job of several: no two of them may be of the same parameter. The hook is
/// called here, and the accumulator exists from here on.
template <ComputeType C>
gemm::Problem<C> weight_gradient_problem(Parameter<Param<C>>& w, std::int64_t tokens,
                                         const gemm::Operand& dy_transposed, const gemm::Operand& x) {
  if (weight_gradient_hook != nullptr) {
    weight_gradient_hook(w.name());
  }
  auto& dw = w.gradient_accumulator();
  gemm::Problem<C> problem;
  problem.m = dw.size(0);
  problem.n = dw.size(1);
  problem.k = tokens;
  problem.a = dy_transposed;
  problem.b = x;
  problem.c = {dw.mutable_data(), dtype_of<Param<C>>, dw.stride(0), dw.stride(1), true};
  return problem;
}

/// dW [out, in] += Σ_t dy[t, :]ᵀ x[t, :], accumulated in Param. `dy_transposed` is [out, T], `x` is [T, in] (either may
/// be gathered); C is the precision operands are multiplied in.
template <ComputeType C>
void weight_gradient(Parameter<Param<C>>& w, std::int64_t tokens, const gemm::Operand& dy_transposed,
                     const gemm::Operand& x) {
  gemm::run(weight_gradient_problem<C>(w, tokens, dy_transposed, x));
}

}  // namespace perft::inline PERFT_ABI

#pragma once
// Exact derivatives of the whole model's total loss along directions that lie in many tensors at once, so that one
// forward pass looks at all of them.

#include <map>     // directions
#include <string>  // names
#include <vector>  // directions

#include "reference/gradient.hpp"

namespace reference {

/// A Problem in complex numbers, made once.
class TotalLoss {
 public:
  explicit TotalLoss(const Problem& problem) : problem_(problem) {
    for (const auto& [name, value] : problem.weights) weights_[name] = widen<Complex>(value);
    for (const auto& [name, value] : problem.params) params_[name] = widen<Complex>(value);
  }

  /// Σ over names and entries of directions[name][i] · ∂ total / ∂ name[i], for adapter parameters and base weights.
  double along(const std::map<std::string, std::vector<double>>& directions) {
    auto weights = weights_, params = params_;
    for (const auto& [name, direction] : directions) {
      auto& tensor = params.contains(name) ? params.at(name) : weights.at(name);
      for (std::size_t i = 0; i < tensor.size(); ++i)
        tensor[i] += Complex(0.0, support::kComplexStep * direction.at(i));
    }
    const auto losses = forward(problem_.config, weights, problem_.adapter, params, problem_.batch, problem_.pad_rows);
    return losses.total.imag() / support::kComplexStep;
  }

 private:
  const Problem problem_;
  Weights<Complex> weights_, params_;
};

}  // namespace reference

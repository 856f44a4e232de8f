#pragma once
// Exact gradients of the whole model's total loss, by the complex step.

#include "reference/model.hpp"
#include "support/gradcheck.hpp"

namespace reference {

/// Everything forward takes, in one value: a model, what is attached to it, and a batch.
struct Problem {
  RefConfig config;
  Weights<double> weights;
  RefAdapter adapter{};
  Weights<double> params{};
  RefBatch batch{};
  PadRows pad_rows = PadRows::hf;
};

inline Losses<double> forward(const Problem& p) {
  return forward(p.config, p.weights, p.adapter, p.params, p.batch, p.pad_rows);
}

/// A Problem in complex numbers, made once, to take derivatives one entry at a time.
class Differentiator {
 public:
  explicit Differentiator(const Problem& problem) : problem_(problem) {
    for (const auto& [name, value] : problem.weights) weights_[name] = widen<Complex>(value);
    for (const auto& [name, value] : problem.params) params_[name] = widen<Complex>(value);
  }

  /// Number of entries of the adapter parameter or base weight `name`.
  std::size_t size(const std::string& name) { return find(name).size(); }

  /// ∂ total / ∂ name[entry]; one forward pass in complex numbers.
  double derivative(const std::string& name, std::size_t entry) {
    Complex& x = find(name).at(entry);
    const Complex before = x;
    x += Complex(0.0, support::kComplexStep);
    const auto losses =
        forward(problem_.config, weights_, problem_.adapter, params_, problem_.batch, problem_.pad_rows);
    x = before;
    return losses.total.imag() / support::kComplexStep;
  }

  /// The derivatives at `entries`, in their order.
  std::vector<double> derivatives(const std::string& name, const std::vector<std::size_t>& entries) {
    std::vector<double> out;
    for (const auto entry : entries) out.push_back(derivative(name, entry));
    return out;
  }

  /// The full gradient of total with respect to `name`: as many forward passes as it has entries.
  std::vector<double> gradient(const std::string& name) {
    std::vector<double> out(size(name));
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = derivative(name, i);
    return out;
  }

 private:
  std::vector<Complex>& find(const std::string& name) {
    const auto found = params_.find(name);
    return found != params_.end() ? found->second : weights_.at(name);
  }

  const Problem problem_;
  Weights<Complex> weights_;
  Weights<Complex> params_;
};

}  // namespace reference

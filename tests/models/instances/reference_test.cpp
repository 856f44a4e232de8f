// The reference model in real and complex numbers, compiled once for this folder's tests.

#include <catch2/catch.hpp>

#include "models/support/cases.hpp"

namespace models_test {

reference::Losses<double> reference_losses(const reference::Problem& problem) {
  return reference::forward(problem);
}

DirectionalDerivatives::DirectionalDerivatives(const reference::Problem& problem)
    : DirectionalDerivatives(problem, {problem.batch}, {1.0}) {}

DirectionalDerivatives::DirectionalDerivatives(const reference::Problem& problem,
                                               const std::vector<reference::RefBatch>& parts,
                                               const std::vector<double>& shares)
    : problem_(problem), parts_(parts), shares_(shares) {
  for (const auto& [name, value] : problem.weights) weights_[name] = reference::widen<Complex>(value);
  for (const auto& [name, value] : problem.params) params_[name] = reference::widen<Complex>(value);
}

double DirectionalDerivatives::along(const std::string& name, const std::vector<double>& v) {
  auto& tensor = params_.contains(name) ? params_.at(name) : weights_.at(name);
  const auto before = tensor;
  for (std::size_t i = 0; i < tensor.size(); ++i) tensor[i] += Complex(0.0, support::kComplexStep * v.at(i));
  const Complex sum = complex_total();
  tensor = before;
  return sum.imag() / support::kComplexStep;
}

double DirectionalDerivatives::total() {
  return complex_total().real();
}

std::complex<double> DirectionalDerivatives::complex_total() {
  Complex nll = 0.0, aux = 0.0;
  double targets = 0.0;
  for (std::size_t m = 0; m < parts_.size(); ++m) {
    const auto losses =
        reference::forward(problem_.config, weights_, problem_.adapter, params_, parts_[m], problem_.pad_rows);
    for (std::size_t t = 0; t < losses.targets.size(); ++t) {
      const bool ignored = problem_.pad_rows == reference::PadRows::ignore && parts_[m].attention_mask[t] == 0;
      if (losses.targets[t] != reference::kIgnored && !ignored) {
        nll += losses.nll[t];
        targets += 1.0;
      }
    }
    aux += shares_.at(m) * problem_.config.aux_coef * (losses.aux_base + losses.aux_peft);
  }
  return nll / targets + aux;
}

}  // namespace models_test

TEST_CASE("directional derivatives are those of the reference's total, one part or several") {
  using namespace models_test;
  const io_test::TempFolder folder;
  const auto checkpoint = write_random_checkpoint(small_mixtral(), {}, folder.path());
  reference::Problem problem{checkpoint.config, checkpoint.weights};
  problem.batch = random_batch({{0, 7}, {3, 7}}, 7, 37, 0, 5);
  DirectionalDerivatives whole(problem);
  CHECK(support::close(whole.total(), reference_losses(problem).total, {.abs = 1e-14}));
  const std::string name = "model.layers.0.self_attn.v_proj.weight";
  const std::size_t n = checkpoint.weights.at(name).size();
  const auto direction = numbers(n, 4);
  reference::Differentiator one_by_one(problem);
  double sum = 0.0;
  for (std::size_t i = 0; i < n; ++i) sum += direction[i] * one_by_one.derivative(name, i);
  CHECK(support::close(whole.along(name, direction), sum, {.abs = 1e-12}));

  // Two equal halves with weight 1/2 each are the whole; with weight 0 the auxiliary loss is gone.
  CHECK(support::close(DirectionalDerivatives(problem, {problem.batch, problem.batch}, {0.5, 0.5}).total(),
                       whole.total(), {.abs = 1e-14}));
  CHECK(support::close(DirectionalDerivatives(problem, {problem.batch}, {0.0}).total(), reference_losses(problem).lm,
                       {.abs = 1e-14}));
}

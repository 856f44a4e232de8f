// The library in bf16, the default, against PyTorch's float gradients: every method of both families, so that a cast
// that exists in bf16 alone cannot be wrong.

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <string>
#include <vector>

#include "models/support/goldens.hpp"

using namespace models_test;
using support::GoldenFile;

namespace {

double norm(const std::vector<double>& x) {
  double sum = 0;
  for (const double value : x) sum += value * value;
  return std::sqrt(sum);
}

/// ‖actual − expected‖ / ‖expected‖.
double relative_error(const std::vector<double>& actual, const std::vector<double>& expected) {
  REQUIRE(actual.size() == expected.size());
  std::vector<double> difference;
  for (std::size_t i = 0; i < actual.size(); ++i) difference.push_back(actual[i] - expected[i]);
  return norm(difference) / norm(expected);
}

}  // namespace

TEST_CASE("bf16: losses and gradients are PyTorch's float ones, to bf16's rounding") {
  std::vector<double> errors;
  std::size_t adapters = 0;
  for (const Variant& variant : golden_variants()) {
    if (variant.name == "base") continue;
    const GoldenFile golden = load_golden(variant);
    Engine<perft::bf16> engine((golden_family(variant) / "checkpoint").string());
    if (variant.name == "full") {
      engine.train_everything();
    } else {
      engine.attach(golden_spec(golden));
      REQUIRE(set_values(engine.trained(), golden.with_prefix("param.")).empty());
      ++adapters;
    }
    INFO(variant.family << "/" << variant.name);
    const auto expected = golden.with_prefix("grad.");
    if (expected.empty()) continue;
    const auto batch = padded(reference::golden_batch(golden), engine.config().vocab_size).batch;
    const perft::Losses losses = engine.accumulate(batch, whole_batch(batch, engine.config().router_aux_loss_coef));
    CHECK(std::abs(losses.lm - golden.scalar("lm")) < 0.03);
    for (const auto* parameter : engine.trained()) {
      const auto& gradient = expected.at(parameter->name());
      if (norm(gradient) < 1e-6) continue;  // an expert that hardly any token chose
      INFO(parameter->name());
      const double error = relative_error(stored_gradient(*parameter), gradient);
      CHECK(error < 1);  // a token whose routing is nearly a tie may go elsewhere in bf16: 0.6 of a small gradient
      errors.push_back(error);
    }
  }
  CHECK(adapters > 10);
  REQUIRE(errors.size() > 200);
  std::sort(errors.begin(), errors.end());
  CHECK(errors[errors.size() / 2] < 0.03);
  CHECK(errors[errors.size() * 9 / 10] < 0.1);
}

#pragma once
// The library in double against the naive reference in double on one family's golden files: 1e-10 of the largest entry.

#include <algorithm>  // std::max
#include <catch2/catch.hpp>
#include <cmath>   // absolute values
#include <map>     // directions
#include <string>  // names
#include <vector>  // directions

#include "models/support/goldens.hpp"
#include "reference/directional.hpp"
#include "support/close.hpp"

namespace models_test {

constexpr double kExact = 1e-10;

/// How many tensors share a forward pass of the reference.
constexpr std::size_t kTogether = 8;

/// Whether Σ v·gradient/scale over these parameters is the reference's derivative along v/scale, where v lies in
/// ±[0.5, 1] and scale is a tensor's largest gradient entry: an entry off by 2e-10 of its tensor's largest shows.
/// Scales below 1e-4 count as 1e-4; gradients that are zero in exact arithmetic are 1e-17 or so on either side.
inline support::CloseResult are_gradients(reference::TotalLoss& total,
                                          const std::vector<perft::Parameter<double>*>& parameters) {
  std::map<std::string, std::vector<double>> directions;
  double dot = 0;
  for (const auto* parameter : parameters) {
    const auto gradient = stored_gradient(*parameter);
    double scale = 1e-4;
    for (const double g : gradient) scale = std::max(scale, std::abs(g));
    auto direction = numbers(gradient.size(), seed_of(parameter->name()) + 99);
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      direction[i] = std::copysign(0.5 + 0.5 * std::abs(direction[i]), direction[i]) / scale;
      dot += gradient[i] * direction[i];
    }
    directions[parameter->name()] = std::move(direction);
  }
  return support::close(dot, total.along(directions), {.abs = kExact});
}

/// Logits, losses and the gradient of every trained tensor, on every batch of every file of `family`.
inline void compare_in_double(const std::string& family) {
  for (const Variant& variant : golden_variants()) {
    if (variant.family != family) continue;
    const support::GoldenFile golden = load_golden(variant);
    Engine<double> engine((golden_family(variant) / "checkpoint").string());
    if (variant.name == "full") {
      engine.train_everything();
    } else if (variant.name != "base") {
      engine.attach(golden_spec(golden));
      CHECK(set_values(engine.trained(), golden.with_prefix("param.")).empty());
    }
    CHECK(engine.trained().empty() == (variant.name == "base"));
    for (const std::string& prefix : golden_batches(golden)) {
      INFO(variant.family << "/" << variant.name << " " << prefix);
      const reference::Problem problem = reference::golden_problem(golden_family(variant), golden, prefix);
      const auto batch = padded(problem.batch, engine.config().vocab_size);
      const auto expected = reference_losses(problem);
      CHECK(support::close(spread(engine.logits(batch.batch), batch.logit_source), expected.logits,
                           {.rel_to_max = kExact}));
      engine.clear_gradients();
      const perft::Losses losses =
          engine.accumulate(batch.batch, whole_batch(batch.batch, engine.config().router_aux_loss_coef));
      CHECK(support::close(losses.lm, expected.lm, {.rel_to_max = kExact}));
      CHECK(support::close(losses.aux, expected.aux_base, {.rel_to_max = kExact}));
      CHECK(support::close(losses.adapter_aux, expected.aux_peft, {.rel_to_max = kExact}));

      const auto trained = engine.trained();
      if (trained.empty()) continue;
      reference::TotalLoss total(problem);
      for (std::size_t begin = 0; begin < trained.size(); begin += kTogether) {
        const auto first = trained.begin() + static_cast<std::ptrdiff_t>(begin);
        const auto size = static_cast<std::ptrdiff_t>(std::min(kTogether, trained.size() - begin));
        INFO("tensors from " << (*first)->name());
        CHECK(are_gradients(total, {first, first + size}));
      }
    }
  }
}

}  // namespace models_test

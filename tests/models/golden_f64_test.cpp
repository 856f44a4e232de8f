// The library in double against the naive reference in double, on every golden file: 1e-10 of the largest entry.

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "models/support/goldens.hpp"
#include "support/close.hpp"

using namespace models_test;
using support::close;

namespace {

constexpr double kExact = 1e-10;

}  // namespace

TEST_CASE("double: logits, losses and gradients are the reference's on every golden batch") {
  for (const Variant& variant : golden_variants()) {
    const support::GoldenFile golden = load_golden(variant);
    Engine<double> engine((golden_family(variant) / "checkpoint").string());
    if (std::string(variant.name) == "full") {
      engine.train_everything();
    } else if (std::string(variant.name) != "base") {
      engine.attach(golden_spec(golden));
      CHECK(set_values(engine.trained(), golden.with_prefix("param.")).empty());
    }
    for (const std::string& prefix : golden_batches(golden)) {
      INFO(variant.family << "/" << variant.name << " " << prefix);
      const reference::Problem problem = reference::golden_problem(golden_family(variant), golden, prefix);
      const auto batch = padded(problem.batch, engine.config().vocab_size);
      const auto expected = reference_losses(problem);
      CHECK(close(spread(engine.logits(batch.batch), batch.logit_source), expected.logits, {.rel_to_max = kExact}));
      engine.clear_gradients();
      const perft::Losses losses =
          engine.accumulate(batch.batch, whole_batch(batch.batch, engine.config().router_aux_loss_coef));
      CHECK(close(losses.lm, expected.lm, {.rel_to_max = kExact}));
      CHECK(close(losses.aux, expected.aux_base, {.rel_to_max = kExact}));
      CHECK(close(losses.adapter_aux, expected.aux_peft, {.rel_to_max = kExact}));
      if (prefix == "nopad.") continue;  // gradients: one direction per tensor is a forward pass of the reference

      const auto parameters = engine.trained();
      DirectionalDerivatives derivatives(problem);
      const std::size_t stride = parameters.size() / 6 + 1;
      for (std::size_t i = 0; i < parameters.size(); i += stride) {
        INFO(parameters[i]->name());
        CHECK(is_gradient(derivatives, parameters[i]->name(), stored_gradient(*parameters[i]), kExact));
      }
    }
  }
}

// The library in float against every golden file of PyTorch and transformers: logits, losses, gradients, AdamW steps.

#include <catch2/catch.hpp>
#include <cmath>
#include <string>
#include <vector>

#include "models/support/goldens.hpp"
#include "perft/train/adamw.hpp"
#include "support/close.hpp"

using namespace models_test;
using support::close;
using support::GoldenFile;

namespace {

/// The model of a golden file with its adapter (or everything trained), loaded from folders as a program would.
void prepare(Engine<float>& engine, const Variant& variant, const GoldenFile& golden) {
  if (std::string(variant.name) == "full") {
    engine.train_everything();
  } else if (std::string(variant.name) != "base") {
    const io_test::TempFolder folder;
    write_golden_adapter(golden, engine.facts(), folder.path());
    (void)load_adapter(engine, folder.path());
  }
}

/// Within 1e-4 of the tensor's largest entry, or 1e-7.
support::CloseResult gradient_close(const std::vector<double>& actual, const std::vector<double>& expected) {
  const auto result = close(actual, expected, {.rel_to_max = 1e-4});
  return result ? result : close(actual, expected, {.abs = 1e-7});
}

struct Deviations {
  std::size_t entries = 0, above_2e6 = 0;
  double worst = 0;

  void add(const std::vector<double>& actual, const std::vector<double>& expected) {
    REQUIRE(actual.size() == expected.size());
    for (std::size_t i = 0; i < actual.size(); ++i) {
      const double difference = std::abs(actual[i] - expected[i]);
      REQUIRE(std::isfinite(difference));
      ++entries;
      above_2e6 += difference > 2e-6 ? 1 : 0;
      worst = std::max(worst, difference);
    }
  }
};

}  // namespace

TEST_CASE("float: logits and losses are PyTorch's on every golden batch") {
  for (const Variant& variant : golden_variants()) {
    const GoldenFile golden = load_golden(variant);
    Engine<float> engine((golden_family(variant) / "checkpoint").string());
    prepare(engine, variant, golden);
    for (const std::string& prefix : golden_batches(golden)) {
      INFO(variant.family << "/" << variant.name << " " << prefix);
      const auto batch = padded(reference::golden_batch(golden, prefix), engine.config().vocab_size);
      CHECK(close(spread(engine.logits(batch.batch), batch.logit_source), golden.values(prefix + "logits"),
                  {.abs = 1e-4}));
      const double coef = engine.config().router_aux_loss_coef;
      const perft::Losses losses = engine.evaluate(batch.batch, whole_batch(batch.batch, coef));
      CHECK(close(losses.lm, golden.scalar(prefix + "lm"), {.abs = 1e-5}));
      CHECK(close(losses.aux, golden.scalar(prefix + "aux_base"), {.abs = 1e-5}));
      CHECK(close(losses.adapter_aux, golden.scalar(prefix + "aux_peft"), {.abs = 1e-5}));
      CHECK(
          close(losses.lm + coef * (losses.aux + losses.adapter_aux), golden.scalar(prefix + "total"), {.abs = 1e-5}));
      if (golden.has(prefix + "lm_real_rows")) {
        const auto ignore =
            padded(reference::golden_batch(golden, prefix), engine.config().vocab_size, perft::PadRows::ignore).batch;
        CHECK(close(engine.evaluate(ignore, whole_batch(ignore, coef)).lm, golden.scalar(prefix + "lm_real_rows"),
                    {.abs = 1e-5}));
      }
    }
  }
}

TEST_CASE("float: gradients of exactly the golden's parameters are PyTorch's") {
  for (const Variant& variant : golden_variants()) {
    const GoldenFile golden = load_golden(variant);
    Engine<float> engine((golden_family(variant) / "checkpoint").string());
    prepare(engine, variant, golden);
    for (const std::string& prefix : golden_batches(golden)) {
      INFO(variant.family << "/" << variant.name << " " << prefix);
      auto expected = golden.with_prefix(prefix + "grad.");
      const auto batch = padded(reference::golden_batch(golden, prefix), engine.config().vocab_size).batch;
      engine.clear_gradients();
      (void)engine.accumulate(batch, whole_batch(batch, engine.config().router_aux_loss_coef));
      for (const auto* parameter : engine.trained()) {
        INFO(parameter->name());
        REQUIRE(expected.contains(parameter->name()));
        REQUIRE(parameter->gradient().defined());
        CHECK(gradient_close(stored_gradient(*parameter), expected.at(parameter->name())));
        expected.erase(parameter->name());
      }
      CHECK(expected.empty());
    }
  }
}

TEST_CASE("float: three AdamW steps end where PyTorch's do") {
  for (const Variant& variant : golden_variants()) {
    const GoldenFile golden = load_golden(variant);
    if (!golden.has("step1.grad_norm")) continue;
    Engine<float> engine((golden_family(variant) / "checkpoint").string());
    prepare(engine, variant, golden);
    const auto batch = padded(reference::golden_batch(golden), engine.config().vocab_size).batch;
    const double coef = engine.config().router_aux_loss_coef;
    perft::AdamW<float> optimizer(engine.trained());
    std::size_t compared = 0;
    for (const std::string step : {"1", "2", "3"}) {
      INFO(variant.family << "/" << variant.name << " step " << step);
      engine.clear_gradients();
      (void)engine.accumulate(batch, whole_batch(batch, coef));
      const double norm = perft::gradient_norm(engine.trained());
      CHECK(close(norm, golden.scalar("step" + step + ".grad_norm"), {.rel_to_max = 1e-5}));
      optimizer.step(1e-3, perft::clip_factor(norm, 1.0));
      Deviations deviations;
      for (const auto* parameter : engine.trained()) {
        const std::string name = "after" + step + ".param." + parameter->name();
        if (golden.has(name)) deviations.add(stored_value(*parameter), golden.values(name));
      }
      compared += deviations.entries;
      CAPTURE(deviations.worst, deviations.above_2e6, deviations.entries);
      CHECK(deviations.worst <= 5e-5);
      CHECK(static_cast<double>(deviations.above_2e6) <= 1e-3 * static_cast<double>(deviations.entries));
      if (!golden.has("after" + step + ".lm")) continue;
      const perft::Losses losses = engine.evaluate(batch, whole_batch(batch, coef));
      CHECK(close(losses.lm, golden.scalar("after" + step + ".lm"), {.abs = 1e-5}));
      CHECK(close(losses.aux, golden.scalar("after" + step + ".aux_base"), {.abs = 1e-5}));
      CHECK(close(losses.adapter_aux, golden.scalar("after" + step + ".aux_peft"), {.abs = 1e-5}));
    }
    CHECK((compared > 0 || std::string(variant.name) == "lora-experts"));
  }
}

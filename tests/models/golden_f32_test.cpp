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
  if (variant.name == "full") {
    engine.train_everything();
  } else if (variant.name != "base") {
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
      if (expected.empty() && variant.name == "full" && !prefix.empty()) continue;  // too large to be in the file
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
    for (const std::string step : {"1", "2", "3"}) {
      INFO(variant.family << "/" << variant.name << " step " << step);
      const std::string after = "after" + step + ".";
      engine.clear_gradients();
      (void)engine.accumulate(batch, whole_batch(batch, coef));
      const double norm = perft::gradient_norm(engine.trained());
      CHECK(close(norm, golden.scalar("step" + step + ".grad_norm"), {.rel_to_max = 1e-5}));
      optimizer.step(1e-3, perft::clip_factor(norm, 1.0));

      const auto expected = golden.with_prefix(after + "param.");
      REQUIRE((step != "3" || !expected.empty()));  // some files hold the parameters after the last step only
      Deviations deviations;
      for (const auto* parameter : engine.trained()) {
        if (expected.empty()) break;
        INFO(parameter->name());
        REQUIRE(expected.contains(parameter->name()));
        deviations.add(stored_value(*parameter), expected.at(parameter->name()));
      }
      if (!expected.empty()) {
        CHECK(expected.size() == engine.trained().size());
        CHECK(deviations.entries > 0);
      }
      CAPTURE(deviations.worst, deviations.above_2e6, deviations.entries);
      CHECK(deviations.worst <= 5e-5);
      CHECK(static_cast<double>(deviations.above_2e6) <= 1e-3 * static_cast<double>(deviations.entries));

      const perft::Losses losses = engine.evaluate(batch, whole_batch(batch, coef));
      const double total = losses.lm + coef * (losses.aux + losses.adapter_aux);
      if (step == "3") REQUIRE(golden.has(after + "total"));
      if (golden.has(after + "total")) CHECK(close(total, golden.scalar(after + "total"), {.abs = 1e-5}));
      if (!golden.has(after + "lm")) continue;
      CHECK(close(losses.lm, golden.scalar(after + "lm"), {.abs = 1e-5}));
      CHECK(close(losses.aux, golden.scalar(after + "aux_base"), {.abs = 1e-5}));
      CHECK(close(losses.adapter_aux, golden.scalar(after + "aux_peft"), {.abs = 1e-5}));
    }
  }
}

TEST_CASE("float: logits along PyTorch's greedy continuations") {
  for (const Variant& variant : golden_variants()) {
    INFO(variant.family << "/" << variant.name);
    const GoldenFile golden = load_golden(variant);
    Engine<float> engine((golden_family(variant) / "checkpoint").string());
    prepare(engine, variant, golden);
    // The prompt and all but the last generated token in one forward pass: what generate saw with its cache. Positions
    // differ by the padding, which RoPE does not see.
    const std::size_t rows = golden.at("prompt_ids").shape.at(0), prompt = golden.at("prompt_ids").shape.at(1);
    const std::size_t steps = golden.at("generated").shape.at(1), length = prompt + steps - 1;
    reference::RefBatch batch{rows, length, {}, {}, {}};
    for (std::size_t row = 0; row < rows; ++row) {
      for (std::size_t t = 0; t < length; ++t) {
        const bool given = t < prompt;
        batch.input_ids.push_back(given ? golden.integers("prompt_ids").at(row * prompt + t)
                                        : golden.integers("generated").at(row * steps + t - prompt));
        batch.attention_mask.push_back(given ? golden.integers("prompt_mask").at(row * prompt + t) : 1);
      }
    }
    batch.labels = batch.input_ids;
    const auto ready = padded(batch, engine.config().vocab_size);
    const auto logits = spread(engine.logits(ready.batch), ready.logit_source);
    const auto vocab = static_cast<std::size_t>(engine.config().vocab_size);
    std::vector<float> continued;
    for (std::size_t row = 0; row < rows; ++row) {
      const auto begin = logits.begin() + static_cast<std::ptrdiff_t>((row * length + prompt - 1) * vocab);
      continued.insert(continued.end(), begin, begin + static_cast<std::ptrdiff_t>(steps * vocab));
    }
    CHECK(close(continued, golden.values("generated_logits"), {.abs = 1e-4}));
  }
}

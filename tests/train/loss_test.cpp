#include "perft/train/loss.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "ops/support/harness.hpp"
#include "perft/ops/embedding.hpp"
#include "perft/ops/linear.hpp"
#include "support/close.hpp"

using harness::numbers;
using support::close;

namespace {

constexpr std::int64_t kVocab = 11, kWidth = 6, kExperts = 3;

/// The least that accumulate_gradients takes for a model: a trained embedding, a router whose statistics are collected
/// and a frozen head.
struct Toy {
  struct {
    std::int64_t num_experts = kExperts;
  } config;

  perft::Weight<double> embed{"embed", harness::tensor<double>(numbers(kVocab* kWidth, 1), {kVocab, kWidth})};
  perft::Weight<double> router{"router", harness::tensor<double>(numbers(kExperts* kWidth, 2), {kExperts, kWidth})};
  perft::Weight<double> lm_head{"head", harness::tensor<double>(numbers(kVocab* kWidth, 3), {kVocab, kWidth})};
  perft::ForwardContext<double> seen;  // of the last pass

  Toy() { embed.make_trainable(); }

  const perft::Weight<double>& head() const { return lm_head; }

  perft::ForwardContext<double> context(const perft::Batch& batch) const {
    return perft::make_context<double>(batch, 2, 100.0);
  }

  perft::Variable<double> forward(const perft::Batch& batch, perft::ForwardContext<double>& context) {
    const auto x = perft::embedding<double>(batch.ids, embed);
    (void)context.route(perft::linear<double>(x, router), 2, false, context.base_balance);
    seen = context;
    return x;
  }
};

perft::Batch batch() {
  perft::Batch b;
  b.ids = {3, 1, 4, 1, 5, 9};
  b.positions = {0, 1, 2, 3, 0, 1};
  b.segments = {{0, 4, 4}, {4, 2, 2}};
  b.real = {1, 1, 1, 1, 1, 0};
  b.row = {0, 0, 0, 0, 1, -1};
  b.column = {0, 1, 2, 3, 0, 0};
  b.loss_rows = {0, 1, 2, 4};
  b.targets = {1, 4, 1, 9};
  b.rows = 2;
  return b;
}

perft::LossOptions options(double aux_weight) {
  perft::LossOptions made;
  made.lm_scale = 0.25;
  made.aux_weight = aux_weight;
  return made;
}

harness::Values gradient(Toy& toy, const perft::LossOptions& with) {
  toy.embed.parameter()->clear_gradient();
  (void)perft::accumulate_gradients<double>(toy, batch(), with);
  return harness::values(toy.embed.parameter()->gradient());
}

double total(Toy& toy, const perft::LossOptions& with) {
  const perft::Losses losses = perft::evaluate_loss<double>(toy, batch(), with);
  return losses.lm + with.aux_weight * (losses.aux + losses.adapter_aux);
}

}  // namespace

TEST_CASE("the gradient is that of lm + aux_weight · aux, and both entry points report the same losses") {
  Toy toy;
  for (const double weight : {0.0, 0.7}) {
    const auto with = options(weight);
    const auto g = gradient(toy, with);
    auto& value = toy.embed.parameter()->mutable_value();
    harness::Values differences;
    for (std::int64_t i = 0; i < value.numel(); ++i) {
      double& entry = value.mutable_span()[static_cast<std::size_t>(i)];
      const double before = entry;
      entry = before + 1e-5;
      const double up = total(toy, with);
      entry = before - 1e-5;
      const double down = total(toy, with);
      entry = before;
      differences.push_back((up - down) / 2e-5);
    }
    CHECK(close(g, differences, {.abs = 1e-8}));
    const auto a = perft::accumulate_gradients<double>(toy, batch(), with);
    const auto b = perft::evaluate_loss<double>(toy, batch(), with);
    CHECK(a.lm == b.lm);
    CHECK(a.aux == b.aux);
    CHECK(a.aux > 0);
    CHECK(a.saved_bytes > 0);
    CHECK(b.saved_bytes == 0);
  }
}

TEST_CASE("evaluate_loss gives each target's own loss, unscaled, and records and adds nothing") {
  Toy toy;
  const auto losses = perft::evaluate_loss<double>(toy, batch(), options(1.0));
  REQUIRE(losses.nll.size() == 4);
  CHECK(close(0.25 * (losses.nll[0] + losses.nll[1] + losses.nll[2] + losses.nll[3]), losses.lm, {.abs = 1e-14}));
  CHECK_FALSE(toy.embed.parameter()->gradient().defined());
  perft::Tape tape;
  const perft::Recording recording(tape);
  (void)perft::evaluate_loss<double>(toy, batch(), options(1.0));
  CHECK(tape.size() == 0);
}

TEST_CASE("gradients are added to those that are there, and scale with lm_scale") {
  Toy toy;
  auto with = options(0.0);
  const auto once = gradient(toy, with);
  (void)perft::accumulate_gradients<double>(toy, batch(), with);
  const auto twice = harness::values(toy.embed.parameter()->gradient());
  with.lm_scale = 0.5;
  CHECK(close(twice, gradient(toy, with), {.rel_to_max = 1e-14}));
  CHECK_FALSE(close(twice, once, {.rel_to_max = 0.1}));
}

TEST_CASE("options reach the context; without collect_aux there is no auxiliary loss") {
  Toy toy;
  auto with = options(1.0);
  with.training = true;
  with.seed = 7;
  with.step = 8;
  with.hidden = perft::HiddenPolicy::kRecompute;
  with.recompute_layers = true;
  (void)perft::evaluate_loss<double>(toy, batch(), with);
  CHECK(toy.seen.training);
  CHECK(toy.seen.seed == 7);
  CHECK(toy.seen.step == 8);
  CHECK(toy.seen.hidden == perft::HiddenPolicy::kRecompute);
  CHECK(toy.seen.recompute_layers);
  CHECK(toy.seen.collect_adapter);
  with.collect_aux = false;
  const auto losses = perft::evaluate_loss<double>(toy, batch(), with);
  CHECK(losses.aux == 0);
  CHECK_FALSE(toy.seen.collect_adapter);
  CHECK(toy.seen.base_balance == nullptr);
}

TEST_CASE("a loss that is not finite is refused before any gradient is added") {
  Toy toy;
  toy.embed.parameter()->mutable_value().mutable_span()[3 * kWidth] = std::numeric_limits<double>::quiet_NaN();
  const std::string text = harness::error_text<perft::NonFiniteError>(
      [&] { (void)perft::accumulate_gradients<double>(toy, batch(), options(1.0)); });
  CHECK(text.starts_with("the loss is not finite (lm nan, aux "));
  CHECK_FALSE(toy.embed.parameter()->gradient().defined());
}

// The references against numbers computed by PyTorch and transformers (tests/fixtures/golden/README.md).

#include <catch2/catch.hpp>
#include <map>
#include <string>
#include <vector>

#include "reference/adamw.hpp"
#include "reference/directional.hpp"
#include "reference/golden_case.hpp"
#include "support/close.hpp"

using reference::Differentiator;
using reference::Problem;
using support::close;
using support::GoldenFile;

namespace {

using Variant = support::GoldenVariant;

Problem problem_of(const Variant& v, const GoldenFile& golden, const std::string& prefix = "") {
  return reference::golden_problem(support::golden_folder() / v.family, golden, prefix);
}

std::size_t largest_of(const std::vector<double>& gradient) {
  std::size_t largest = 0;
  for (std::size_t i = 0; i < gradient.size(); ++i) {
    if (std::abs(gradient[i]) > std::abs(gradient[largest])) largest = i;
  }
  return largest;
}

/// Indices worth a derivative: the largest entry of the golden gradient, and one more.
std::vector<std::size_t> entries_of(const std::vector<double>& gradient) {
  return {largest_of(gradient), 2654435761U % gradient.size()};
}

/// The golden gradient with some entries replaced by ours, so that the tolerance is relative to the whole tensor.
support::CloseResult close_at(const std::vector<double>& golden, const std::vector<std::size_t>& entries,
                              const std::vector<double>& ours, support::Tolerance tolerance) {
  auto mixed = golden;
  for (std::size_t i = 0; i < entries.size(); ++i) mixed.at(entries[i]) = ours.at(i);
  return close(mixed, golden, tolerance);
}

// What one-ulp noise on the weights does to PyTorch's own fp32 gradients, relative to a tensor's largest entry.
constexpr support::Tolerance kGradient{.abs = 1e-8, .rel_to_max = 4.2e-6};

}  // namespace

TEST_CASE("reference model: logits, router logits, targets and losses are PyTorch's", "[reference]") {
  for (const Variant& v : support::golden_variants()) {
    const GoldenFile golden = support::read_golden(v);
    for (const std::string& prefix : support::golden_batches(golden)) {
      INFO(v.family << "/" << v.name << " " << prefix);
      const auto losses = reference::forward(problem_of(v, golden, prefix));
      CHECK(close(losses.logits, golden.values(prefix + "logits"), {.abs = 2e-5}));
      CHECK(close(losses.nll, golden.values(prefix + "nll"), {.abs = 2e-5}));
      CHECK(losses.targets == golden.integers(prefix + "targets"));
      CHECK(close(losses.lm, golden.scalar(prefix + "lm"), {.abs = 2e-6}));
      CHECK(close(losses.aux_base, golden.scalar(prefix + "aux_base"), {.abs = 2e-6}));
      CHECK(close(losses.aux_peft, golden.scalar(prefix + "aux_peft"), {.abs = 2e-6}));
      CHECK(close(losses.total, golden.scalar(prefix + "total"), {.abs = 2e-6}));
      if (golden.has(prefix + "lm_real_rows")) {
        CHECK(close(losses.lm_real_rows, golden.scalar(prefix + "lm_real_rows"), {.abs = 2e-6}));
        CHECK(std::abs(losses.lm - losses.lm_real_rows) > 1e-4);  // the pad rows' targets are really there
      }
      for (std::size_t n = 0; n < losses.router_logits.size(); ++n) {
        const auto name = "router_logits." + std::to_string(n);
        if (golden.has(name)) CHECK(close(losses.router_logits[n], golden.values(name), {.abs = 2e-5}));
        if (golden.has("perft_" + name)) {
          CHECK(close(losses.perft_router_logits.at(n), golden.values("perft_" + name), {.abs = 2e-5}));
        }
      }
    }
  }
}

TEST_CASE("reference model: both spellings of config.json say the same", "[reference]") {
  for (const auto* family : {"olmoe", "mixtral"}) {
    const auto folder = support::golden_folder() / family / "checkpoint";
    const auto a = reference::read_config(folder / "config.json");
    const auto b = reference::read_config(folder / "config.transformers5.json");
    CHECK(a.rope_theta == b.rope_theta);
    CHECK(a.head_dim == b.head_dim);
    CHECK(a.experts == b.experts);
    CHECK(a.norm_topk == b.norm_topk);
    CHECK(a.padding_idx == b.padding_idx);
    CHECK(a.aux_coef == b.aux_coef);
  }
}

TEST_CASE("reference model: complex-step derivatives of the total loss are PyTorch's gradients, every tensor's",
          "[reference]") {
  constexpr std::size_t kTogether = 8;  // tensors in one forward pass: the sum of their largest entries' derivatives
  for (const Variant& v : support::golden_variants()) {
    const GoldenFile golden = support::read_golden(v);
    for (const std::string& prefix : support::golden_batches(golden)) {
      const auto gradients = golden.with_prefix(prefix + "grad.");
      if (gradients.empty()) continue;  // base, and full's batch without padding
      reference::TotalLoss total(problem_of(v, golden, prefix));
      std::map<std::string, std::vector<double>> directions;
      double expected = 0, tolerance = 0;
      std::size_t left = gradients.size();
      for (const auto& [name, gradient] : gradients) {
        const std::size_t at = largest_of(gradient);
        const double sign = gradient[at] < 0 ? -1.0 : 1.0;
        std::vector<double> direction(gradient.size(), 0.0);
        direction[at] = sign;
        directions[name] = std::move(direction);
        expected += sign * gradient[at];
        tolerance += kGradient.abs + kGradient.rel_to_max * std::abs(gradient[at]);
        if (--left % kTogether != 0) continue;
        INFO(v.family << "/" << v.name << " " << prefix << " tensors up to " << name);
        CHECK(close(total.along(directions), expected, {.abs = tolerance}));
        directions.clear();
        expected = tolerance = 0;
      }
    }
  }
}

TEST_CASE("reference model: derivatives by base weights are PyTorch's, the embedding's pad row included",
          "[reference]") {
  const Variant v{"olmoe", "full"};
  const GoldenFile golden = support::read_golden(v);
  Differentiator differentiator(problem_of(v, golden));
  for (const std::string name :
       {"lm_head.weight", "model.norm.weight", "model.layers.0.input_layernorm.weight",
        "model.layers.1.post_attention_layernorm.weight", "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.k_norm.weight", "model.layers.1.self_attn.v_proj.weight",
        "model.layers.0.self_attn.o_proj.weight", "model.layers.0.mlp.gate.weight",
        "model.layers.1.mlp.experts.5.gate_proj.weight", "model.layers.0.mlp.experts.2.up_proj.weight",
        "model.layers.1.mlp.experts.0.down_proj.weight", "model.embed_tokens.weight"}) {
    INFO(name);
    const auto& gradient = golden.values("grad." + name);
    auto entries = entries_of(gradient);
    if (name == "model.embed_tokens.weight") {
      entries.push_back(64);  // row 1, the pad row: no gradient although it is read
      CHECK(gradient.at(64) == 0.0);
    }
    CHECK(close_at(gradient, entries, differentiator.derivatives(name, entries), kGradient));
  }
}

TEST_CASE("reference AdamW and clipping make PyTorch's first step out of PyTorch's gradients", "[reference]") {
  std::size_t steps = 0;
  for (const Variant& v : support::golden_variants()) {
    const GoldenFile golden = support::read_golden(v);
    if (!golden.has("step1.grad_norm")) continue;
    INFO(v.family << "/" << v.name);
    auto params = golden.with_prefix("param.");
    auto gradients = golden.with_prefix("grad.");
    std::vector<std::vector<double>*> all;
    for (auto& [name, gradient] : gradients) all.push_back(&gradient);
    const double norm = reference::clip_grad_norm(all, 1.0);
    CHECK(close(norm, golden.scalar("step1.grad_norm"), {.rel_to_max = 1e-6}));
    if (golden.with_prefix("after1.param.").empty()) continue;
    CHECK(!params.empty());
    for (auto& [name, value] : params) {
      INFO(name);
      reference::AdamWState state;
      reference::adamw_step(value, gradients.at(name), state, 1, {.lr = 1e-3});
      CHECK(close(value, golden.values("after1.param." + name), {.abs = 2e-7}));
    }
    ++steps;
  }
  CHECK(steps > 0);
}

TEST_CASE("reference model: losses after each of PyTorch's steps, from its parameters", "[reference]") {
  for (const Variant& v : support::golden_variants()) {
    const GoldenFile golden = support::read_golden(v);
    if (!golden.has("step1.grad_norm")) continue;
    auto problem = problem_of(v, golden);
    for (const std::string step : {"after1.", "after2.", "after3."}) {
      INFO(v.family << "/" << v.name << " " << step);
      const auto params = golden.with_prefix(step + "param.");
      REQUIRE((step != "after3." || !params.empty()));  // some files hold the parameters after the last step only
      if (params.empty()) continue;
      (v.name == "full" ? problem.weights : problem.params) = params;
      const auto losses = reference::forward(problem);
      CHECK(close(losses.total, golden.scalar(step + "total"), {.abs = 2e-6}));
      if (!golden.has(step + "lm")) continue;
      CHECK(close(losses.lm, golden.scalar(step + "lm"), {.abs = 2e-6}));
      CHECK(close(losses.aux_base, golden.scalar(step + "aux_base"), {.abs = 2e-6}));
      CHECK(close(losses.aux_peft, golden.scalar(step + "aux_peft"), {.abs = 2e-6}));
    }
  }
}

// Facts about the reference operations that the golden files do not exercise, on values worked out by hand.

#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "reference/adamw.hpp"
#include "reference/gradient.hpp"
#include "support/close.hpp"

using reference::PadRows;
using support::close;
using V = std::vector<double>;
using Mask = std::vector<std::int64_t>;

TEST_CASE("linear: rows of w are outputs; the LoRA term adds s B A x", "[reference]") {
  const V x{1, 2, 3, 4}, w{1, 0, 0, 1, 1, 1};  // x [2, 2], w [3, 2]
  CHECK(reference::linear(x, w, 2, 3) == V{1, 2, 3, 3, 4, 7});
  const reference::LowRank<double> term{{1, 1}, {1, 2, 3}, 1, 0.5};  // A [1, 2], B [3, 1]
  CHECK(reference::lora_linear(x, w, term, 2, 3) == V{2.5, 5, 7.5, 6.5, 11, 17.5});
  CHECK(reference::lora_linear(x, w, reference::LowRank<double>{}, 2, 3) == reference::linear(x, w, 2, 3));
}

TEST_CASE("rms_norm: divides by the root mean square and multiplies by the weight", "[reference]") {
  const double r = std::sqrt(12.5 + 0.5);
  CHECK(close(reference::rms_norm(V{3, 4, 0, 0}, V{1, 2}, 0.5), {3 / r, 8 / r, 0, 0}, {.abs = 1e-15}));
}

TEST_CASE("rope: pairs entry c with c + d/2; position 0 turns nothing; lengths are kept", "[reference]") {
  const V x{1, 0, 0, 0, 0, 2, 0, 0};  // two rows, one head of 4
  const auto y = reference::rope(x, {0, 1}, 1, 4, 100.0);
  CHECK(close(y, {1, 0, 0, 0, 0, 2 * std::cos(0.1), 0, 2 * std::sin(0.1)}, {.abs = 1e-15}));
  // A dot product of two turned vectors depends on the distance of their positions alone.
  const V q{0.3, -0.2, 0.7, 0.1}, k{-0.5, 0.4, 0.2, 0.9};
  const auto dot = [&](double i, double j) {
    const auto a = reference::rope(q, {i}, 1, 4, 50.0), b = reference::rope(k, {j}, 1, 4, 50.0);
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3];
  };
  CHECK(close(dot(5, 2), dot(13, 10), {.abs = 1e-14}));
  CHECK(std::abs(dot(5, 2) - dot(5, 3)) > 1e-3);
}

TEST_CASE("attention: causal, masked keys, sliding window over columns, queries that see nothing", "[reference]") {
  const V zero(5, 0.0), v{1, 2, 4, 8, 16};  // equal scores: the output is the mean of what is seen
  const auto mean = [&](const Mask& mask, std::size_t window) {
    return reference::attention(zero, zero, v, mask, 1, 1, 1, window);
  };
  CHECK(close(mean({1, 1, 1, 1, 1}, 0), {1, 1.5, 7.0 / 3, 3.75, 6.2}, {.abs = 1e-15}));
  CHECK(close(mean({0, 0, 1, 1, 1}, 0), {0, 0, 4, 6, 28.0 / 3}, {.abs = 1e-14}));
  CHECK(close(mean({1, 1, 0, 0, 0}, 0), {1, 1.5, 1.5, 1.5, 1.5}, {.abs = 1e-15}));  // pad queries see the real keys
  CHECK(close(mean({1, 1, 1, 1, 1}, 2), {1, 1.5, 3, 6, 12}, {.abs = 1e-15}));
  CHECK(close(mean({1, 1, 0, 0, 0}, 2), {1, 1.5, 2, 0, 0}, {.abs = 1e-15}));
  CHECK(close(mean({1, 1, 1, 1, 1}, 1), v, {}));
}

TEST_CASE("attention: scores are scaled by the root of d, and query heads share kv heads in blocks", "[reference]") {
  // One row, two columns, d = 4; second query against two keys whose scores are 2 and 0 after scaling.
  const V q{0, 0, 0, 0, 1, 1, 1, 1}, k{1, 1, 1, 1, 0, 0, 0, 0}, v{1, 0, 0, 0, 0, 1, 0, 0};
  const double p = std::exp(2.0) / (std::exp(2.0) + 1.0);
  CHECK(close(reference::attention(q, k, v, {1, 1}, 1, 1, 4), {1, 0, 0, 0, p, 1 - p, 0, 0}, {.abs = 1e-15}));
  CHECK(reference::attention(V(4, 0.0), V(2, 0.0), V{3, 5}, {1}, 4, 2, 1) == V{3, 3, 5, 5});
}

TEST_CASE("clip: brings entries to the limit on both sides", "[reference]") {
  CHECK(reference::clip(V{-3, -2, 0.5, 2, 9}, 2.0) == V{-2, -2, 0.5, 2, 2});
}

TEST_CASE("silu and swiglu: values, and no overflow far out", "[reference]") {
  CHECK(close(reference::swiglu(V{1, -1, 0}, V{2, 3, 5}), {2 / (1 + std::exp(-1.0)), -3 / (1 + std::exp(1.0)), 0},
              {.abs = 1e-15}));
  CHECK(reference::silu(-1000.0) == 0.0);
  CHECK(reference::silu(1000.0) == 1000.0);
  CHECK(reference::silu(reference::Complex(-1000.0, 1e-30)) == 0.0);
  CHECK(reference::silu(reference::Complex(1000.0, 1e-30)) == reference::Complex(1000.0, 1e-30));
}

TEST_CASE("router: most probable first, ties to the lower index, renormalised if asked", "[reference]") {
  const V logits{std::log(1.0), std::log(3.0), std::log(3.0), std::log(1.0)};  // p = 1/8, 3/8, 3/8, 1/8
  const auto plain = reference::route(logits, 4, 3, false);
  CHECK(plain.experts == std::vector<std::size_t>{1, 2, 0});
  CHECK(close(plain.weights, {0.375, 0.375, 0.125}, {.abs = 1e-15}));
  CHECK(close(reference::route(logits, 4, 3, true).weights, {3.0 / 7, 3.0 / 7, 1.0 / 7}, {.abs = 1e-15}));
}

TEST_CASE("perft: dense sum, routed sum, and the released code's weights", "[reference]") {
  const V x{1, 2};  // one token, D = 2, rank 1: Δ0 = 2·x0·(1, 0), Δ1 = 2·x1·(0, 1)
  const std::vector<reference::Delta<double>> deltas{{{1, 0}, {1, 0}, false, 2.0}, {{0, 1}, {0, 1}, false, 2.0}};
  CHECK(reference::perft_dense(x, deltas, 2) == V{2, 4});
  const reference::Routing<double> own{1, {1}, {0.25}}, base{2, {7, 3}, {0.5, 0.125}};
  CHECK(reference::perft_routed(x, own, deltas, 2) == V{0, 1});
  CHECK(reference::perft_routed(x, reference::with_base_weights(own, base), deltas, 2) == V{0, 2});
  const reference::Routing<double> two{2, {1, 0, 0, 1}, {1, 1, 1, 1}}, base3{3, {0, 0, 0, 0, 0, 0}, {1, 2, 3, 4, 5, 6}};
  CHECK(reference::with_base_weights(two, base3).weights == V{1, 2, 4, 5});
  const reference::Delta<double> parallel{{1, 0}, {3, 1}, true, 99.0};  // no scaling in this form
  CHECK(close(reference::delta_forward(x, parallel, 2), {3 / (1 + std::exp(-1.0)), 1 / (1 + std::exp(-1.0))},
              {.abs = 1e-15}));
}

TEST_CASE("embedding: the pad row is read but has no derivative", "[reference]") {
  using C = reference::Complex;
  const std::vector<C> table{C(1, 1e-30), C(2, 1e-30)};
  const auto y = reference::embedding(table, {1, 0, 1}, 1, 1);
  CHECK(y == std::vector<C>{C(2, 0), C(1, 1e-30), C(2, 0)});
  CHECK_THROWS(reference::embedding(table, {2}, 1));
}

TEST_CASE("cross-entropy: shift stays within rows; hf counts what a pad row predicts, ignore does not", "[reference]") {
  const Mask labels{-100, 1, 0, 1, 1, -100}, mask{0, 1, 1, 1, 1, 0};
  const auto targets = reference::shifted_targets(labels, 3);
  CHECK(targets == Mask{1, 0, -100, 1, -100, -100});
  const V logits{0, 0, std::log(3.0), 0, 9, 9, 0, std::log(3.0), 9, 9, 9, 9};
  const auto nll = reference::negative_log_likelihood(logits, targets);
  CHECK(close(nll, {std::log(2.0), std::log(4.0 / 3), 0, std::log(4.0 / 3), 0, 0}, {.abs = 1e-15}));
  CHECK(close(reference::mean_loss(nll, targets, mask, PadRows::hf), (std::log(2.0) + 2 * std::log(4.0 / 3)) / 3,
              {.abs = 1e-15}));
  CHECK(close(reference::mean_loss(nll, targets, mask, PadRows::ignore), std::log(4.0 / 3), {.abs = 1e-15}));
}

TEST_CASE("load balance: k when uniform, n when collapsed at k = 1, padding left out, layers pooled", "[reference]") {
  CHECK(close(reference::load_balance<double>({V(8, 0.0)}, {1, 1}, 4, 2), 2.0, {.abs = 1e-15}));
  CHECK(close(reference::load_balance<double>({V{50, 0, 0, 0, 50, 0}}, {1, 1}, 3, 1), 1.5, {.abs = 1e-12}));
  CHECK(close(reference::load_balance<double>({V{50, 0, 0, 0, 50, 0}}, {1, 0}, 3, 1), 3.0, {.abs = 1e-12}));
  // Each layer alone is collapsed (2 each), together they are balanced: pooling gives 1.
  CHECK(close(reference::load_balance<double>({V{50, 0}, V{0, 50}}, {1}, 2, 1), 1.0, {.abs = 1e-12}));
}

TEST_CASE("AdamW: decoupled decay, bias correction, and clipping only above the norm", "[reference]") {
  V p{2.0};
  reference::AdamWState state;
  reference::adamw_step(p, {0.5}, state, 1, {.lr = 0.1, .eps = 0.0, .weight_decay = 0.25});
  CHECK(close(p, {2.0 * 0.975 - 0.1}, {.abs = 1e-15}));  // a first step is lr · sign(g)
  reference::adamw_step(p, {0.0}, state, 2, {.lr = 0.1, .eps = 0.0});
  const double m = 0.9 * 0.05 / (1 - 0.81), v = 0.999 * 0.00025 / (1 - 0.999 * 0.999);
  CHECK(close(p, {1.85 - 0.1 * m / std::sqrt(v)}, {.abs = 1e-12}));
  V a{3, 0}, b{4};
  CHECK(reference::clip_grad_norm({&a, &b}, 10.0) == 5.0);
  CHECK(a == V{3, 0});
  CHECK(reference::clip_grad_norm({&a, &b}, 1.0) == 5.0);
  CHECK(close(b, {4 / (5 + 1e-6)}, {.abs = 1e-15}));
}

namespace {

/// A one-layer Mixtral-like model of width 4 with every switch reachable, filled with fixed irregular numbers.
reference::Problem small_problem() {
  reference::Problem p;
  p.config.mixtral = true;
  p.config.hidden = 4;
  p.config.layers = 1;
  p.config.heads = 2;
  p.config.kv_heads = 1;
  p.config.head_dim = 2;
  p.config.experts = 2;
  p.config.top_k = 1;
  p.config.intermediate = 3;
  p.config.vocab = 5;
  p.config.norm_topk = true;
  p.config.aux_coef = 0.1;
  unsigned seed = 1;
  const auto fill = [&](const std::string& name, std::size_t n) {
    auto& w = p.weights[name];
    for (std::size_t i = 0; i < n; ++i) {
      seed = seed * 1664525U + 1013904223U;
      w.push_back(static_cast<double>(seed >> 8) / 8388608.0 - 1.0);
    }
  };
  const std::string layer = "model.layers.0.";
  fill("model.embed_tokens.weight", 20);
  fill("model.norm.weight", 4);
  fill("lm_head.weight", 20);
  fill(layer + "input_layernorm.weight", 4);
  fill(layer + "post_attention_layernorm.weight", 4);
  fill(layer + "self_attn.q_proj.weight", 16);
  fill(layer + "self_attn.k_proj.weight", 8);
  fill(layer + "self_attn.v_proj.weight", 8);
  fill(layer + "self_attn.o_proj.weight", 16);
  fill(layer + "block_sparse_moe.gate.weight", 8);
  for (const std::string e : {"0", "1"}) {
    for (const std::string m : {"w1", "w2", "w3"})
      fill(layer + "block_sparse_moe.experts." + e + "." + m + ".weight", 12);
  }
  p.batch = {1, 4, {3, 1, 4, 2}, {0, 1, 1, 1}, {-100, 1, 4, 2}};
  return p;
}

}  // namespace

TEST_CASE("model: tied embeddings use the table as head, and its gradient has both parts", "[reference]") {
  auto tied = small_problem();
  tied.config.tie_word_embeddings = true;
  auto untied = small_problem();
  untied.weights["lm_head.weight"] = untied.weights["model.embed_tokens.weight"];
  CHECK(reference::forward(tied).logits == reference::forward(untied).logits);
  tied.weights.erase("lm_head.weight");
  CHECK_NOTHROW(reference::forward(tied));
  const auto both = reference::Differentiator(tied).gradient("model.embed_tokens.weight");
  auto sum = reference::Differentiator(untied).gradient("model.embed_tokens.weight");
  const auto head = reference::Differentiator(untied).gradient("lm_head.weight");
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += head[i];
  CHECK(close(both, sum, {.rel_to_max = 1e-13}));
}

TEST_CASE("model: a window as long as the row changes nothing, a shorter one does; so do clip_qkv and pad rows",
          "[reference]") {
  const auto plain = small_problem();
  const auto logits = reference::forward(plain).logits;
  auto p = plain;
  p.config.sliding_window = 4;
  CHECK(reference::forward(p).logits == logits);
  p.config.sliding_window = 2;
  CHECK_FALSE(close(reference::forward(p).logits, logits, {.abs = 1e-6}));
  p = plain;
  p.config.clip_qkv = 100.0;
  CHECK(reference::forward(p).logits == logits);
  p.config.clip_qkv = 0.5;
  CHECK_FALSE(close(reference::forward(p).logits, logits, {.abs = 1e-6}));
  p = plain;
  p.pad_rows = PadRows::ignore;
  const auto ignored = reference::forward(p), hf = reference::forward(plain);
  CHECK(close(ignored.total, ignored.lm_real_rows + 0.1 * ignored.aux_base, {.abs = 1e-15}));
  CHECK(close(hf.total, hf.lm + 0.1 * hf.aux_base, {.abs = 1e-15}));
  CHECK(std::abs(hf.lm - hf.lm_real_rows) > 1e-4);
}

TEST_CASE("model: a missing weight is named", "[reference]") {
  auto p = small_problem();
  p.weights.erase("model.layers.0.block_sparse_moe.experts.1.w3.weight");
  CHECK_THROWS_WITH(reference::forward(p),
                    "reference model: no weight model.layers.0.block_sparse_moe.experts.1.w3.weight");
}

TEST_CASE("gradient: the complex step agrees with central differences on every kind of weight", "[reference]") {
  const auto p = small_problem();
  reference::Differentiator differentiator(p);
  for (const auto& [name, value] : p.weights) {
    INFO(name);
    const std::size_t i = value.size() / 2;
    auto up = p, down = p;
    up.weights[name][i] += 1e-6;
    down.weights[name][i] -= 1e-6;
    const double difference = (reference::forward(up).total - reference::forward(down).total) / 2e-6;
    CHECK(close(differentiator.derivative(name, i), difference, {.abs = 1e-8, .rel_to_max = 1e-7}));
  }
}

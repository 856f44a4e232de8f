#include "perft/ops/cross_entropy.hpp"

#include <catch2/catch.hpp>  // test cases

#include "ops/support/harness.hpp"
#include "perft/ops/embedding.hpp"
#include "reference/cross_entropy.hpp"
#include "reference/embedding.hpp"
#include "reference/linear.hpp"

using namespace harness;
using perft::bf16;
using perft::DType;
using perft::Param;
using perft::Recording;
using perft::ScoredTargets;
using perft::ShapeError;
using perft::Tape;
using perft::Tensor;
using perft::ValueError;
using perft::Weight;
using support::close;

namespace {

/// scale · Σ nll over the scored targets.
template <class S>
S loss_reference(const std::vector<S>& h, const std::vector<S>& w, std::size_t d, const ScoredTargets& scored,
                 double scale) {
  S sum(0.0);
  for (std::size_t i = 0; i < scored.rows.size(); ++i) {
    const auto x = reference::row(h, static_cast<std::size_t>(scored.rows[i]), d);
    const auto logits = reference::linear(x, w, d, w.size() / d);
    sum += reference::negative_log_likelihood(logits, {scored.targets[i]})[0];
  }
  return sum * scale;
}

/// The analytic chain: what the complex step gives, in one pass over the tokens; for vocabularies too large for it.
struct Analytic {
  double loss = 0;
  Values dh, dw;

  Analytic(const Values& h, const Values& w, std::size_t d, const ScoredTargets& scored, double scale)
      : dh(h.size(), 0.0), dw(w.size(), 0.0) {
    for (std::size_t t = 0; t < h.size() / d; ++t) {
      const auto x = reference::row(h, t, d);
      const auto logits = reference::linear(x, w, d, w.size() / d);
      const double log_sum = reference::log_sum_exp(logits);
      Values dlogits(logits.size(), 0.0);
      double times = 0;
      for (std::size_t i = 0; i < scored.rows.size(); ++i) {
        if (static_cast<std::size_t>(scored.rows[i]) == t) {
          const auto target = static_cast<std::size_t>(scored.targets[i]);
          loss += scale * (log_sum - logits[target]);
          dlogits[target] -= scale;
          times += 1;
        }
      }
      for (std::size_t v = 0; v < logits.size(); ++v) {
        dlogits[v] += scale * times * std::exp(logits[v] - log_sum);
        for (std::size_t c = 0; c < d; ++c) {
          dh[t * d + c] += dlogits[v] * w[v * d + c];
          dw[v * d + c] += dlogits[v] * x[c];
        }
      }
    }
  }
};

template <class C>
void check_against(const Analytic& expected, const Tensor<C>& h, Weight<Param<C>>& head, const ScoredTargets& scored,
                   double scale, float seed) {
  using P = Param<C>;
  const auto n = static_cast<double>(scored.rows.size());
  const bool trained = head.trained() != nullptr;
  Tape tape;
  Recording recording(tape);
  const Leaf<C> input(tape, h);
  double exact = -1;
  const auto loss = perft::cross_entropy(input.variable, head, scored, scale, &exact);
  // A logit is a sum of D products, the denominator one of V terms; the loss averages n of their logarithms.
  auto for_loss = tolerance<P>(static_cast<double>(head.cols() + head.rows()), 0);
  for_loss.abs = for_loss.rel_to_max;
  CHECK(close(exact, expected.loss, for_loss));
  CHECK(loss.value().shape() == perft::Shape{1});
  CHECK(loss.value().data()[0] == static_cast<P>(exact));
  CHECK(tape.saved_bytes() == (trained ? h.bytes() : static_cast<std::size_t>(h.numel()) * sizeof(P)) +
                                  2 * scored.rows.size() * sizeof(std::int32_t));
  CHECK(tape.node(0).name() == "cross_entropy");
  tape.add_gradient(loss.edge(), Tensor<P>::full({1}, static_cast<P>(seed)));
  tape.backward();
  const auto scaled = [&](Values v) {
    for (double& x : v) {
      x *= static_cast<double>(seed);
    }
    return v;
  };
  const auto terms = static_cast<double>(head.cols() + head.rows()) + n;
  // bf16: a probability minus one is rounded before it is multiplied, and the result once more.
  CHECK(close(values(tape.take_gradient<C>(input.edge)), scaled(expected.dh), tolerance<C>(terms, 2)));
  if (trained) {
    auto for_w = tolerance<C>(terms, 1);
    for_w.abs = std::same_as<C, double> ? 1e-15 : support::epsilon<float>();  // 0.5 is added and taken away again
    CHECK(close(added_gradient(*head.trained(), 0.5), scaled(expected.dw), for_w));
  }
}

}  // namespace

TEMPLATE_TEST_CASE("cross_entropy: loss and gradients through the tape are those of the reference", "", double, float,
                   bf16) {
  using C = TestType;
  using P = Param<C>;
  const std::vector<ScoredTargets> cases{{{}, {}}, {{2}, {4}}, {{0, 3, 3, 1, 3}, {10, 0, 5, 5, 0}}};
  for (const ScoredTargets& scored : cases) {
    for (const std::int64_t d : {1, 7}) {
      for (const float seed : {1.0F, -0.5F}) {
        CAPTURE(scored.rows.size(), d, seed);
        const auto h = tensor<C>(numbers(4 * d, 1, 2.0), {4, d});
        const auto raw = as_operand<C>(numbers(11 * d, 2, 2.0));
        const double scale = 0.3;
        const auto gradients = exact_gradients(
            [&](const std::vector<Complexes>& z) {
              return Complexes{loss_reference(z[0], z[1], static_cast<std::size_t>(d), scored, scale)};
            },
            {values(h), raw}, {1.0});
        const Analytic expected(values(h), raw, static_cast<std::size_t>(d), scored, scale);
        CHECK(close(expected.dh, gradients[0], {.abs = 1e-15, .rel_to_max = 1e-13}));
        CHECK(close(expected.dw, gradients[1], {.abs = 1e-15, .rel_to_max = 1e-13}));
        {
          const OnlyTrained nothing({});
          auto head = frozen<P>("lm_head", raw, std::same_as<C, double> ? DType::f64 : DType::bf16, 11, d);
          const Values held = std::same_as<C, bf16> ? raw : head.values;
          check_against(Analytic(values(h), held, static_cast<std::size_t>(d), scored, scale), h, head.weight, scored,
                        scale, seed);
        }
        {
          const OnlyTrained only({"lm_head"});
          Weight<P> head("lm_head", tensor<P>(raw, {11, d}));
          prefill_gradient(head.make_trainable(), 0.5);
          check_against(
              Analytic(values(h), values(head.parameter()->value()), static_cast<std::size_t>(d), scored, scale), h,
              head, scored, scale, seed);
        }
      }
    }
  }
}

TEMPLATE_TEST_CASE("cross_entropy: several chunks give what one pass gives", "", double, float) {
  using C = TestType;
  const std::int64_t vocabulary = 70001, tokens = 5;
  // 64 rows are the smallest chunk: 150 targets are three.
  const std::int64_t chunk = perft::detail::cross_entropy_chunk<C>(vocabulary);
  ScoredTargets scored;
  for (std::int32_t i = 0; i < 150; ++i) {
    scored.rows.push_back(i * i % 5);
    scored.targets.push_back(i * 461 % 70001);
  }
  REQUIRE(chunk < 150);
  const auto h = tensor<C>(numbers(tokens * 2, 1, 2.0), {tokens, 2});
  Weight<C> head("lm_head", tensor<C>(numbers(vocabulary * 2, 2, 2.0), {vocabulary, 2}));
  const Analytic expected(values(h), values(head.parameter()->value()), 2, scored, 1.0 / 150);
  check_against(expected, h, head, scored, 1.0 / 150, 1.0F);
  prefill_gradient(head.make_trainable(), 0.5);
  check_against(expected, h, head, scored, 1.0 / 150, 2.0F);
}

TEST_CASE("cross_entropy: a chunk is 32 MiB of logits, at least 64 rows") {
  CHECK(perft::detail::cross_entropy_chunk<float>(32000) == 262);
  CHECK(perft::detail::cross_entropy_chunk<double>(32000) == 131);
  CHECK(perft::detail::cross_entropy_chunk<float>(1 << 20) == 64);
}

TEST_CASE("cross_entropy: a table tied to the head gets both gradients") {
  const std::vector<std::int32_t> ids{3, 1, 3};
  const ScoredTargets scored{{0, 1, 2}, {1, 3, 0}};
  Weight<double> table("embed", tensor<double>(numbers(5 * 4, 1), {5, 4}));
  table.make_trainable();
  Tape tape;
  Recording recording(tape);
  const auto loss = perft::cross_entropy(perft::embedding<double>(ids, table), table, scored, 0.5);
  tape.add_gradient(loss.edge(), Tensor<double>::full({1}, 1.0));
  tape.backward();
  const auto expected = exact_gradients(
      [&](const std::vector<Complexes>& z) {
        const auto h = reference::embedding(z[0], {ids.begin(), ids.end()}, 4);
        return Complexes{loss_reference(h, z[0], 4, scored, 0.5)};
      },
      {values(table.parameter()->value())}, {1.0});
  CHECK(close(values(table.trained()->gradient()), expected[0], {.rel_to_max = 1e-12}));
}

TEST_CASE("cross_entropy: a trained head behind a constant; nothing wanted, nothing recorded") {
  const auto h = tensor<float>(numbers(6, 1), {2, 3});
  const ScoredTargets scored{{0, 1}, {1, 0}};
  Weight<float> head("lm_head", tensor<float>(numbers(6, 2), {2, 3}));
  Tape tape;
  Recording recording(tape);
  CHECK_FALSE(perft::cross_entropy<float>(h, head, scored, 1.0).needs_gradient());
  CHECK(tape.size() == 0);
  head.make_trainable();
  const auto loss = perft::cross_entropy<float>(h, head, scored, 1.0);
  tape.add_gradient(loss.edge(), Tensor<float>::full({1}, 1.0F));
  tape.backward();
  CHECK(head.trained()->gradient().defined());
}

TEST_CASE("cross_entropy: logits of thousands give a finite loss") {
  const auto h = tensor<float>({1000, 1000}, {2, 1});
  Weight<float> head("lm_head", tensor<float>({5, -5}, {2, 1}));
  CHECK(perft::cross_entropy_forward(h, head, {{0, 1}, {0, 1}}, 1.0, false).loss == 10000.0);
}

TEST_CASE("cross_entropy: the same bits for 1, 2 and 3 threads") {
  const std::int64_t tokens = 40, d = 33, vocabulary = 517;
  const auto h = tensor<bf16>(numbers(tokens * d, 1), {tokens, d});
  ScoredTargets scored;
  for (std::int32_t i = 0; i < 90; ++i) {
    scored.rows.push_back(i * 7 % 40);
    scored.targets.push_back(i * 31 % 517);
  }
  Weight<float> head("lm_head", tensor<float>(numbers(vocabulary * d, 2), {vocabulary, d}));
  for (const bool trained : {false, true}) {
    if (trained) {
      head.make_trainable();
    }
    check_same_bits_for_any_threads([&] {
      if (trained) {
        head.trained()->clear_gradient();
      }
      Tape tape;
      Recording recording(tape);
      const Leaf<bf16> input(tape, h);
      const auto loss = perft::cross_entropy(input.variable, head, scored, 0.01);
      tape.add_gradient(loss.edge(), Tensor<float>::full({1}, 1.0F));
      tape.backward();
      Bits bits;
      bits.add(loss.value()).add(tape.take_gradient<bf16>(input.edge));
      return trained ? bits.add(head.trained()->gradient()) : bits;
    });
  }
}

TEST_CASE("cross_entropy: error texts") {
  const Weight<float> head("lm_head", Tensor<float>::zeros({4, 3}));
  const auto h = Tensor<float>::zeros({2, 3});
  const auto shape = [&](const Tensor<float>& x, const ScoredTargets& scored) {
    return error_text<ShapeError>([&] { perft::cross_entropy_forward(x, head, scored, 1.0, false); });
  };
  const auto value = [&](const ScoredTargets& scored) {
    return error_text<ValueError>([&] { perft::cross_entropy_forward(h, head, scored, 1.0, false); });
  };
  CHECK(shape(Tensor<float>::zeros({2, 4}), {}) == "cross_entropy: h is [2, 4], expected contiguous [T, 3]");
  CHECK(shape(Tensor<float>::zeros({3, 2}).transpose(0, 1), {}) ==
        "cross_entropy: h is [2, 3], expected contiguous [T, 3]");
  CHECK(shape(Tensor<float>::zeros({3}), {}) == "cross_entropy: h is [3], expected contiguous [T, 3]");
  CHECK(shape(h, {{0}, {1, 2}}) == "cross_entropy: 1 rows for 2 targets");
  const std::string expected = "), expected rows below 2 and ids below 4";
  CHECK(value({{0, 2}, {0, 1}}) == "cross_entropy: target 1 is (row 2, id 1" + expected);
  CHECK(value({{-1}, {1}}) == "cross_entropy: target 0 is (row -1, id 1" + expected);
  CHECK(value({{1}, {4}}) == "cross_entropy: target 0 is (row 1, id 4" + expected);
  CHECK(value({{1}, {-100}}) == "cross_entropy: target 0 is (row 1, id -100" + expected);
}

#pragma once
// What cross_entropy computes, and one recorded call held against it.

#include "ops/support/harness.hpp"
#include "perft/ops/cross_entropy.hpp"
#include "reference/cross_entropy.hpp"
#include "reference/linear.hpp"

namespace harness {

/// scale · Σ nll over the scored targets.
template <class S>
S loss_reference(const std::vector<S>& h, const std::vector<S>& w, std::size_t d, const perft::ScoredTargets& scored,
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

  Analytic(const Values& h, const Values& w, std::size_t d, const perft::ScoredTargets& scored, double scale)
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
void check_against(const Analytic& expected, const perft::Tensor<C>& h, perft::Weight<perft::Param<C>>& head,
                   const perft::ScoredTargets& scored, double scale, float seed) {
  using P = perft::Param<C>;
  const auto n = static_cast<double>(scored.rows.size());
  const bool trained = head.trained() != nullptr;
  perft::Tape tape;
  perft::Recording recording(tape);
  const Leaf<C> input(tape, h);
  double exact = -1;
  const auto loss = perft::cross_entropy(input.variable, head, scored, scale, &exact);
  // A logit is a sum of D products, the denominator one of V terms; the loss averages n of their logarithms.
  auto for_loss = tolerance<P>(static_cast<double>(head.cols() + head.rows()), 0);
  for_loss.abs = for_loss.rel_to_max;
  CHECK(support::close(exact, expected.loss, for_loss));
  CHECK(loss.value().shape() == perft::Shape{1});
  CHECK(loss.value().data()[0] == static_cast<P>(exact));
  CHECK(tape.saved_bytes() == (trained ? h.bytes() : static_cast<std::size_t>(h.numel()) * sizeof(P)) +
                                  2 * scored.rows.size() * sizeof(std::int32_t));
  CHECK(tape.node(0).name() == "cross_entropy");
  tape.add_gradient(loss.edge(), perft::Tensor<P>::full({1}, static_cast<P>(seed)));
  tape.backward();
  const auto scaled = [&](Values v) {
    for (double& x : v) {
      x *= static_cast<double>(seed);
    }
    return v;
  };
  const auto terms = static_cast<double>(head.cols() + head.rows()) + n;
  // bf16: a probability minus one is rounded before it is multiplied, and the result once more.
  CHECK(support::close(values(tape.take_gradient<C>(input.edge)), scaled(expected.dh), tolerance<C>(terms, 2)));
  if (trained) {
    auto for_w = tolerance<C>(terms, 1);
    for_w.abs = std::same_as<C, double> ? 1e-15 : support::epsilon<float>();  // 0.5 is added and taken away again
    CHECK(support::close(added_gradient(*head.trained(), 0.5), scaled(expected.dw), for_w));
  }
}

/// No target, one, repeated rows; frozen and trained heads; seeds that scale and turn the gradient.
template <class C>
void check_small_cases() {
  using P = perft::Param<C>;
  const std::vector<perft::ScoredTargets> cases{{{}, {}}, {{2}, {4}}, {{0, 3, 3, 1, 3}, {10, 0, 5, 5, 0}}};
  for (const perft::ScoredTargets& scored : cases) {
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
        CHECK(support::close(expected.dh, gradients[0], {.abs = 1e-15, .rel_to_max = 1e-13}));
        CHECK(support::close(expected.dw, gradients[1], {.abs = 1e-15, .rel_to_max = 1e-13}));
        {
          const OnlyTrained nothing({});
          auto head =
              frozen<P>("lm_head", raw, std::same_as<C, double> ? perft::DType::f64 : perft::DType::bf16, 11, d);
          const Values held = std::same_as<C, perft::bf16> ? raw : head.values;
          check_against(Analytic(values(h), held, static_cast<std::size_t>(d), scored, scale), h, head.weight, scored,
                        scale, seed);
        }
        {
          const OnlyTrained only({"lm_head"});
          perft::Weight<P> head("lm_head", tensor<P>(raw, {11, d}));
          prefill_gradient(head.make_trainable(), 0.5);
          check_against(
              Analytic(values(h), values(head.parameter()->value()), static_cast<std::size_t>(d), scored, scale), h,
              head, scored, scale, seed);
        }
      }
    }
  }
}

}  // namespace harness

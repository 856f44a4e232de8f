#include "perft/ops/router_topk.hpp"

#include <catch2/catch.hpp>  // test cases

#include "ops/support/harness.hpp"
#include "reference/load_balance.hpp"

using namespace harness;
using perft::LoadBalance;
using perft::Recording;
using perft::ShapeError;
using perft::Tape;
using perft::Tensor;
using perft::ValueError;
using support::close;
using Mask = std::vector<std::uint8_t>;

namespace {

std::shared_ptr<const Mask> all_real(std::int64_t tokens) {
  return std::make_shared<const Mask>(static_cast<std::size_t>(tokens), std::uint8_t{1});
}

std::vector<std::int64_t> ids_of(const Tensor<std::int32_t>& ids) {
  return {ids.span().begin(), ids.span().end()};
}

/// What a router with these choices, whatever its logits prefer, gives as weights.
template <class S>
std::vector<S> weights_of(const std::vector<S>& logits, std::size_t n, std::size_t k,
                          const std::vector<std::int64_t>& ids, bool renormalise) {
  std::vector<S> weights;
  for (std::size_t t = 0; t < logits.size() / n; ++t) {
    const auto p = reference::softmax(reference::row(logits, t, n));
    S sum(0.0);
    for (std::size_t s = 0; s < k; ++s) {
      sum += p[static_cast<std::size_t>(ids[t * k + s])];
    }
    for (std::size_t s = 0; s < k; ++s) {
      const S chosen = p[static_cast<std::size_t>(ids[t * k + s])];
      weights.push_back(renormalise ? chosen / sum : chosen);
    }
  }
  return weights;
}

}  // namespace

TEMPLATE_TEST_CASE("router_topk: choices, weights and gradients are those of the reference", "", double, float) {
  using P = TestType;
  for (const std::int64_t n : {1, 2, 3, 8, 17, 64}) {
    for (const std::int64_t k : {1, 2, 8, 64}) {
      for (const bool renormalise : {false, true}) {
        for (const std::int64_t tokens : {0, 1, 5}) {
          if (k > n) {
            continue;
          }
          CAPTURE(n, k, renormalise, tokens);
          const auto logits = tensor<P>(numbers(tokens * n, 1, 3.0), {tokens, n});
          const auto dw = tensor<P>(numbers(tokens * k, 2), {tokens, k});
          Tape tape;
          Recording recording(tape);
          const Leaf<P> input(tape, logits);
          const auto routing =
              perft::router_topk<P>(input.variable, k, renormalise, {}, nullptr, all_real(tokens), true);
          const auto expected =
              reference::route(values(logits), static_cast<std::size_t>(n), static_cast<std::size_t>(k), renormalise);
          CHECK(ids_of(routing.ids) == std::vector<std::int64_t>(expected.experts.begin(), expected.experts.end()));
          const auto terms = static_cast<double>(n);
          CHECK(close(values(routing.weights.value()), expected.weights, tolerance<P>(terms, 0)));
          const auto kept = static_cast<std::size_t>(tokens * n + (renormalise ? tokens * k : 0)) * sizeof(P);
          CHECK(tape.saved_bytes() == kept + static_cast<std::size_t>(tokens * k) * 4);
          CHECK(tape.node(0).name() == "router_topk");
          tape.add_gradient(routing.weights.edge(), dw);
          tape.backward();
          const auto gradient = exact_gradients(
              [&](const std::vector<Complexes>& z) {
                return reference::route(z[0], static_cast<std::size_t>(n), static_cast<std::size_t>(k), renormalise)
                    .weights;
              },
              {values(logits)}, values(dw));
          // dl = p ⊙ (dp − <p, dp>) cancels where one expert has all the weight: the scale is that of dw.
          auto allowed = tolerance<P>(4 * terms, 0);
          allowed.abs = allowed.rel_to_max;
          CHECK(close(values(tape.take_gradient<P>(input.edge)), gradient[0], allowed));
        }
      }
    }
  }
}

TEMPLATE_TEST_CASE("router_topk: equal probabilities go to the lower index", "", double, float) {
  using P = TestType;
  const auto ids = [](const Values& logits, std::int64_t k) {
    const auto n = static_cast<std::int64_t>(logits.size());
    return ids_of(perft::router_topk_forward(tensor<P>(logits, {1, n}), k, true).ids);
  };
  using Ids = std::vector<std::int64_t>;
  CHECK(ids(Values(64, 0.5), 8) == Ids{0, 1, 2, 3, 4, 5, 6, 7});
  CHECK(ids({1, 2, 2, 1, 2}, 4) == Ids{1, 2, 4, 0});
  CHECK(ids({0, 3, 1, 3}, 1) == Ids{1});
  CHECK(ids({0, 1, 2, 3}, 4) == Ids{3, 2, 1, 0});
  CHECK(ids({3, 1, 1, 2}, 3) == Ids{0, 3, 1});
}

TEST_CASE("router_topk: a row of NaN still chooses different experts inside the range") {
  const double nan = std::nan("");
  const auto ids = ids_of(perft::router_topk_forward(tensor<float>({nan, 1, nan, 2}, {1, 4}), 3, true).ids);
  CHECK(std::set<std::int64_t>(ids.begin(), ids.end()).size() == 3);
  CHECK(*std::min_element(ids.begin(), ids.end()) >= 0);
  CHECK(*std::max_element(ids.begin(), ids.end()) < 4);
}

TEMPLATE_TEST_CASE("router_topk: replayed choices are taken as they are, forward and backward", "", double, float) {
  using P = TestType;
  const auto logits = tensor<P>(numbers(3 * 5, 1), {3, 5});
  const auto replay = int_tensor({4, 0, 1, 1 + 1, 3, 0}, {3, 2});  // not what the logits prefer
  const auto dw = tensor<P>(numbers(6, 2), {3, 2});
  for (const bool renormalise : {false, true}) {
    REQUIRE(ids_of(perft::router_topk_forward(logits, 2, renormalise).ids) != ids_of(replay));
    Tape tape;
    Recording recording(tape);
    const Leaf<P> input(tape, logits);
    const auto routing = perft::router_topk<P>(input.variable, 2, renormalise, replay, nullptr, all_real(3), false);
    CHECK(ids_of(routing.ids) == ids_of(replay));
    CHECK(close(values(routing.weights.value()), weights_of(values(logits), 5, 2, ids_of(replay), renormalise),
                tolerance<P>(5, 0)));
    tape.add_gradient(routing.weights.edge(), dw);
    tape.backward();
    const auto expected = exact_gradients(
        [&](const std::vector<Complexes>& z) { return weights_of(z[0], 5, 2, ids_of(replay), renormalise); },
        {values(logits)}, values(dw));
    CHECK(close(values(tape.take_gradient<P>(input.edge)), expected[0], tolerance<P>(40, 0)));
  }
}

TEMPLATE_TEST_CASE("router_topk: the auxiliary loss of two pooled layers reaches the real tokens' logits", "", double,
                   float) {
  using P = TestType;
  const std::int64_t tokens = 4, n = 5, k = 2;
  const auto real = std::make_shared<const Mask>(Mask{1, 0, 1, 1});
  const std::vector<std::int64_t> mask(real->begin(), real->end());
  const std::vector<Tensor<P>> logits{tensor<P>(numbers(tokens * n, 1, 2.0), {tokens, n}),
                                      tensor<P>(numbers(tokens * n, 2, 2.0), {tokens, n})};
  const auto dw = tensor<P>(numbers(tokens * k, 3), {tokens, k});
  for (const bool lm : {false, true}) {  // with and without a gradient of the weights
    for (const bool renormalise : {false, true}) {
      const auto balance = std::make_shared<LoadBalance>(n);
      Tape tape;
      Recording recording(tape);
      const Leaf<P> first(tape, logits[0]), second(tape, logits[1]);
      const auto a = perft::router_topk<P>(first.variable, k, renormalise, {}, balance, real, true);
      const auto b = perft::router_topk<P>(second.variable, k, renormalise, {}, balance, real, true);
      // A recomputation's router reads the statistics but does not add to them.
      const auto before = balance->rows();
      perft::router_topk(perft::Variable<P>(logits[0]), k, renormalise, a.ids, balance, real, false);
      CHECK(balance->rows() == before);
      CHECK(before == 6);
      CHECK(close(balance->value(), reference::load_balance<double>({values(logits[0]), values(logits[1])}, mask, 5, 2),
                  {.rel_to_max = std::same_as<P, double> ? 1e-12 : 1e-6}));
      balance->set_weight(0.3);
      if (lm) {
        tape.add_gradient(a.weights.edge(), dw);
      }
      tape.backward();
      const auto loss = [&](const std::vector<Complexes>& z) {
        Complexes out{0.3 * reference::load_balance<reference::Complex>({z[0], z[1]}, mask, 5, 2)};
        const auto weights = reference::route(z[0], 5, 2, renormalise).weights;
        for (std::size_t i = 0; lm && i < weights.size(); ++i) {
          out[0] += weights[i] * values(dw)[i];
        }
        return out;
      };
      const auto expected = exact_gradients(loss, {values(logits[0]), values(logits[1])}, {1.0});
      CHECK(close(values(tape.take_gradient<P>(first.edge)), expected[0], tolerance<P>(80, 0)));
      CHECK(close(values(tape.take_gradient<P>(second.edge)), expected[1], tolerance<P>(80, 0)));
    }
  }
}

TEST_CASE("router_topk: without a gradient and without an auxiliary weight nothing is sent") {
  const auto balance = std::make_shared<LoadBalance>(3);
  Tape tape;
  Recording recording(tape);
  const Leaf<float> input(tape, tensor<float>(numbers(6, 1), {2, 3}));
  perft::router_topk<float>(input.variable, 1, true, {}, balance, all_real(2), true);
  tape.backward();  // weight 0
  CHECK_FALSE(tape.take_gradient<float>(input.edge).defined());
}

TEST_CASE("router_topk: frozen logits record nothing but are counted") {
  const auto balance = std::make_shared<LoadBalance>(3);
  Tape tape;
  Recording recording(tape);
  perft::router_topk(perft::Variable<float>(tensor<float>(numbers(6, 1), {2, 3})), 1, true, {}, balance, all_real(2),
                     true);
  CHECK(tape.size() == 0);
  CHECK(balance->rows() == 2);
}

TEST_CASE("router_topk: the same bits for 1, 2 and 3 threads, and for a row alone") {
  const std::int64_t tokens = 500, n = 64, k = 8;
  const auto logits = tensor<float>(numbers(tokens * n, 1, 3.0), {tokens, n});
  const auto dw = tensor<float>(numbers(tokens * k, 2), {tokens, k});
  check_same_bits_for_any_threads([&] {
    const auto out = perft::router_topk_forward(logits, k, true);
    return Bits()
        .add(out.ids)
        .add(out.weights)
        .add(perft::router_topk_backward(dw, out, true, nullptr, *all_real(tokens)));
  });
  const auto batch = perft::router_topk_forward(logits, k, true);
  const auto alone = perft::router_topk_forward(logits.slice(0, 300, 301), k, true);
  CHECK(Bits().add(alone.ids).add(alone.weights) ==
        Bits().add(batch.ids.slice(0, 300, 301)).add(batch.weights.slice(0, 300, 301)));
}

TEST_CASE("router_topk: error texts") {
  const auto logits = Tensor<float>::zeros({2, 3});
  const auto value = [&](std::int64_t k) {
    return error_text<ValueError>([&] { perft::router_topk_forward(logits, k, false); });
  };
  CHECK(value(4) == "router_topk: top-k 4 of 3 experts");
  CHECK(value(0) == "router_topk: top-k 0 of 3 experts");
  CHECK(error_text<ShapeError>([&] { perft::router_topk_forward(logits.transpose(0, 1), 1, false); }) ==
        "router_topk: logits are [3, 2], expected a contiguous [T, N]");
  CHECK(error_text<ShapeError>([&] { perft::router_topk_forward(Tensor<float>::zeros({3}), 1, false); }) ==
        "router_topk: logits are [3], expected a contiguous [T, N]");
  CHECK(error_text<ShapeError>([&] {
          perft::router_topk_forward(logits, 2, false, int_tensor({0, 1}, {2, 1}));
        }) == "router_topk: replayed ids are [2, 1], expected [2, 2]");
  const auto out = perft::router_topk_forward(logits, 2, false);
  CHECK(error_text<ShapeError>([&] {
          perft::router_topk_backward(Tensor<float>::zeros({2, 2}), out, false, nullptr, std::vector<std::uint8_t>{1});
        }) == "router_topk: the mask of real tokens has 1 entries, expected 2");
}

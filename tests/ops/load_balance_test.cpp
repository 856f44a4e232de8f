#include "perft/ops/load_balance.hpp"

#include <catch2/catch.hpp>  // test cases

#include "ops/support/harness.hpp"
#include "perft/ops/router_topk.hpp"
#include "reference/load_balance.hpp"

using namespace harness;
using perft::LoadBalance;
using perft::ShapeError;
using perft::Tensor;
using support::close;

TEST_CASE("load_balance: pooled over layers and real tokens, as the reference; micro-batches may differ in size") {
  const std::vector<std::uint8_t> real{1, 1, 0, 1, 0};
  const std::vector<std::int64_t> mask(real.begin(), real.end());
  for (const std::int64_t n : {1, 3, 64}) {
    const std::int64_t k = n == 1 ? 1 : 2;
    LoadBalance balance(n);
    std::vector<Values> layers;
    for (unsigned layer = 0; layer < 3; ++layer) {
      layers.push_back(numbers(5 * n, layer + 1, 2.0));
      const auto out = perft::router_topk_forward(tensor<double>(layers.back(), {5, n}), k, false);
      balance.add(out.probabilities, out.ids, real);
    }
    CHECK(balance.rows() == 9);
    CHECK(balance.experts() == n);
    CHECK(std::accumulate(balance.counts().begin(), balance.counts().end(), std::int64_t{0}) == 9 * k);
    CHECK(close(balance.value(),
                reference::load_balance(layers, mask, static_cast<std::size_t>(n), static_cast<std::size_t>(k)),
                {.rel_to_max = 1e-14}));
  }
}

TEST_CASE("load_balance: uniform routing gives K; nothing seen gives 0 and no gradient") {
  LoadBalance balance(4);
  CHECK(balance.value() == 0.0);
  balance.set_weight(1.0);
  CHECK_FALSE(balance.has_gradient());
  const auto p = Tensor<double>::full({2, 4}, 0.25);
  balance.add(p, int_tensor({0, 1, 2, 3}, {2, 2}), std::vector<std::uint8_t>{0, 0});
  CHECK_FALSE(balance.has_gradient());
  balance.add(p, int_tensor({0, 1, 2, 3}, {2, 2}), std::vector<std::uint8_t>{1, 1});
  CHECK(balance.value() == 2.0);
  CHECK(balance.has_gradient());
  balance.set_weight(0.0);
  CHECK_FALSE(balance.has_gradient());
}

TEST_CASE("load_balance: the gradient is weight · N · counts / rows²") {
  LoadBalance balance(3);
  balance.add(Tensor<float>::full({2, 3}, 0.5F), int_tensor({0, 2, 0, 1}, {2, 2}), std::vector<std::uint8_t>{1, 1});
  balance.set_weight(0.5);
  CHECK(balance.gradient(0) == 0.5 * 3 * 2 / 4);
  CHECK(balance.gradient(1) == 0.5 * 3 * 1 / 4);
  CHECK(std::vector<double>(balance.sums().begin(), balance.sums().end()) == std::vector<double>{1, 1, 1});
}

TEST_CASE("load_balance: error texts") {
  LoadBalance balance(4);
  CHECK(error_text<ShapeError>([&] {
          balance.add(Tensor<float>::zeros({1, 3}), int_tensor({0}, {1, 1}), std::vector<std::uint8_t>{1});
        }) == "load_balance: 3 experts, expected 4");
  CHECK(error_text<ShapeError>([&] {
          balance.add(Tensor<float>::zeros({3, 4}), int_tensor({0, 1, 2}, {3, 1}), std::vector<std::uint8_t>{1, 1});
        }) == "load_balance: the mask of real tokens has 2 entries, expected 3");
  const std::vector<std::int64_t> counts(3);
  const std::vector<double> sums(4);
  CHECK(error_text<ShapeError>([&] { balance.add(1, counts, sums); }) ==
        "load_balance: counts of 3 and sums of 4 experts, expected 4");
  CHECK(balance.rows() == 0);
}

// Loads of routers over layers and steps, and updates that rounding swallows.

#include "perft/train/router_use.hpp"

#include <catch2/catch.hpp>  // test cases
#include <cmath>             // std::log
#include <vector>            // counts

#include "perft/train/lost_updates.hpp"

using namespace perft;

namespace {

/// A forward pass whose layers chose the experts so often.
LoadBalance balance(const std::vector<std::vector<std::int64_t>>& layers) {
  LoadBalance made(static_cast<std::int64_t>(layers.front().size()));
  const std::vector<double> sums(layers.front().size());
  for (const auto& counts : layers) {
    made.add(1, counts, sums);
  }
  return made;
}

}  // namespace

TEST_CASE("a router's load: entropy, dead experts and the busiest") {
  CHECK(ExpertLoad{{5, 5, 5, 5}}.entropy() == Approx(1.0));
  CHECK(ExpertLoad{{20, 0, 0, 0}}.entropy() == 0.0);
  CHECK(ExpertLoad{{10, 10, 0, 0}}.entropy() == Approx(0.5));
  CHECK(ExpertLoad{{1, 3}}.entropy() == Approx(-(0.25 * std::log(0.25) + 0.75 * std::log(0.75)) / std::log(2.0)));
  CHECK(ExpertLoad{{7}}.entropy() == 1.0);
  CHECK(ExpertLoad{{0, 0}}.entropy() == 1.0);
  CHECK(ExpertLoad{{1, 3}}.shares() == std::vector<double>{0.25, 0.75});
  CHECK(ExpertLoad{{10, 10, 0, 0}}.dead() == 2);
  CHECK(ExpertLoad{{10, 10, 0, 0}}.busiest() == Approx(2.0));
  CHECK(ExpertLoad{{1, 3}}.busiest() == Approx(1.5));
}

TEST_CASE("loads of micro-batches and steps add up layer by layer") {
  const LoadBalance first = balance({{1, 2, 3}, {0, 0, 6}});
  const LoadBalance second = balance({{4, 0, 2}, {6, 0, 0}});
  RouterUse use;
  use.add(static_cast<const LoadBalance*>(nullptr));
  CHECK(use.empty());
  use.add(&first);
  use.add(&second);
  CHECK(use.layers()[0].counts == std::vector<std::int64_t>{5, 2, 5});
  CHECK(use.layers()[1].counts == std::vector<std::int64_t>{6, 0, 6});
  RouterUse sum;
  sum.add(use);
  sum.add(use);
  sum.add(RouterUse{});
  CHECK(sum.layers()[1].counts == std::vector<std::int64_t>{12, 0, 12});
  const LoadBalance other = balance({{1, 1, 1}});
  CHECK_THROWS_WITH(use.add(&other), "router use: 1 layers, expected 2");
  const LoadBalance wide = balance({{1, 1, 1, 1}, {1, 1, 1, 1}});
  CHECK_THROWS_WITH(use.add(&wide), "router use: 4 experts, expected 3");
}

TEST_CASE("a router has collapsed when no more than K of its N > K experts are in use") {
  const LoadBalance one = balance({{50, 50, 0, 0}, {26, 24, 25, 25}, {99, 100, 1, 0}, {40, 40, 20, 0}});
  RouterUse use;
  use.add(&one);
  CHECK(use.collapsed(2) == std::vector<std::int64_t>{0, 2});
  CHECK(use.collapsed(1).empty());
  CHECK(use.collapsed(4).empty());  // nothing to choose
  CHECK(RouterUse{}.collapsed(1).empty());
}

TEST_CASE("updates below half a unit in the last place are counted as lost, parameter by parameter") {
  constexpr std::int64_t n = 2000;
  Parameter<float> one;
  Parameter<float> zero;
  one.set("one", Tensor<float>::full({n}, 1.0F));
  zero.set("zero", Tensor<float>::zeros({n}));
  one.set_trainable(true);
  zero.set_trainable(true);
  AdamW<float> optimizer({&zero, &one});
  LostUpdates<float> lost;
  const auto step = [&](double lr, float gradient) {
    for (Parameter<float>* parameter : {&one, &zero}) {
      parameter->clear_gradient();
      parameter->gradient_accumulator() = Tensor<float>::full({n}, gradient);
    }
    lost.before(optimizer);
    optimizer.step(lr);
    lost.after(optimizer);
  };
  step(1e-3, 1.0F);
  CHECK(lost.take(optimizer).share == 0.0);
  CHECK(lost.take(optimizer).name.empty());
  step(1e-9, 1.0F);  // half an ulp of 1 is 3e-8; zero moves
  const auto worst = lost.take(optimizer);
  CHECK(worst.share == 1.0);
  CHECK(worst.name == "one");
  CHECK(lost.take(optimizer).share == 0.0);  // counted once
  step(1e-3, 1.0F);
  step(1e-9, 1.0F);
  CHECK(lost.take(optimizer).share == 0.5);
}

TEST_CASE("an element that was not to be moved is no lost update, and a few say nothing") {
  for (const std::int64_t n : {2000, 15}) {
    Parameter<float> parameter;
    parameter.set("p", Tensor<float>::full({n}, 1.0F));
    parameter.set_trainable(true);
    AdamW<float> optimizer({&parameter});
    LostUpdates<float> lost;
    parameter.gradient_accumulator() = Tensor<float>::full({n}, n > 1000 ? 0.0F : 1.0F);
    lost.before(optimizer);
    optimizer.step(1e-9);
    lost.after(optimizer);
    CHECK(lost.take(optimizer).share == 0.0);
  }
}

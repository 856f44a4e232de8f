// Instantiates the routed ops in float for this folder's tests, and tries them on numbers worked out by hand.

#include "models/support/ops_instances.hpp"
#include "ops/support/harness.hpp"

PERFT_TEST_EXPERT_OPS(template, float, float)

TEST_CASE("low_rank and moe_experts by hand in float") {
  using C = float;
  using P = perft::Param<C>;
  const perft::Variable<C> x(harness::tensor<C>({2, -1}, {1, 2}));
  perft::LowRankBank<P> bank;
  bank.in = bank.out = 2;
  bank.alpha = 3;
  bank.experts.push_back(std::make_unique<perft::LowRankExpert<P>>());
  bank.experts[0]->a.set("a", harness::tensor<P>({1, 0.5}, {1, 2}));
  bank.experts[0]->b.set("b", harness::tensor<P>({2, -4}, {1, 2}));
  const auto delta = perft::low_rank(x, {}, perft::Variable<P>(), bank, {});  // 3 · 1.5 · (2, −4)
  CHECK(harness::values(delta.value()) == harness::Values{9, -18});

  perft::ExpertTable<P> table;
  for (const double down : {1.0, -2.0}) {
    table.push_back({perft::Weight<P>("gate", harness::tensor<P>({0, 0}, {1, 2})),
                     perft::Weight<P>("up", harness::tensor<P>({1, 1}, {1, 2})),
                     perft::Weight<P>("down", harness::tensor<P>({down, 1}, {2, 1}))});
  }
  auto plan = std::make_shared<const perft::RoutingPlan>(perft::make_routing_plan(harness::int_tensor({1}, {1, 1}), 2));
  const perft::Variable<P> weights(harness::tensor<P>({0.5}, {1, 1}));
  const auto y = perft::moe_experts(x, weights, plan, table, {}, perft::HiddenPolicy::kSave);
  CHECK(harness::values(y.value()) == harness::Values{0, 0});  // silu(0) = 0
}

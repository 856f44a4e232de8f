// Instantiates attention, norm, RoPE and routing in bf16 for this folder's tests, and tries them on numbers worked out
// by hand.

#include "models/support/ops_instances.hpp"
#include "ops/support/harness.hpp"

PERFT_TEST_OTHER_OPS(template, bf16, float)

TEST_CASE("attention, rms_norm and router_topk by hand in bf16") {
  using C = perft::bf16;
  using P = perft::Param<C>;
  const perft::Variable<C> x(harness::tensor<C>({3, 4, 0, 2}, {2, 2}));
  // Equal keys: the second token sees the mean of both values.
  const perft::Variable<C> keys(harness::tensor<C>({1, 1, 1, 1}, {2, 2}));
  auto segments = std::make_shared<const std::vector<perft::Segment>>(std::vector<perft::Segment>{{0, 2, 2}});
  const auto o = perft::attention(x, keys, x, segments, {1, 1, 2, 0});
  CHECK(support::close(harness::values(o.value()), {3, 4, 1.5, 3}, {.abs = 1e-6}));

  perft::Parameter<P> w("w", harness::tensor<P>({1, 2}, {2}));
  const auto normed = perft::rms_norm(perft::Variable<C>(harness::tensor<C>({1, -1}, {1, 2})), w, 3.0);  // /sqrt(1 + 3)
  CHECK(harness::values(normed.value()) == harness::Values{0.5, -1});

  auto real = std::make_shared<const std::vector<std::uint8_t>>(std::vector<std::uint8_t>{1});
  const auto routing =
      perft::router_topk(perft::Variable<P>(harness::tensor<P>({0, 1, 1}, {1, 3})), 2, true, {}, nullptr, real, true);
  CHECK(harness::values(routing.weights.value()) == harness::Values{0.5, 0.5});
  CHECK(std::vector<std::int32_t>(routing.ids.span().begin(), routing.ids.span().end()) ==
        std::vector<std::int32_t>{1, 2});
}

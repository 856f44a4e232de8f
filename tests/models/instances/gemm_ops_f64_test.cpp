// Instantiates the products and the loss in double for this folder's tests, and tries them on numbers worked out by
// hand.

#include "models/support/ops_instances.hpp"
#include "ops/support/harness.hpp"

PERFT_TEST_GEMM(template, double)
PERFT_TEST_GEMM_OPS(template, double, double)

TEST_CASE("linear and cross_entropy by hand in double") {
  using C = double;
  using P = perft::Param<C>;
  const perft::Weight<P> w("w", harness::tensor<P>({1, 2, 0, -1, 0.5, 3}, {2, 3}));
  const perft::Variable<C> x(harness::tensor<C>({2, 1, -1}, {1, 3}));
  const perft::Variable<P> y = perft::linear<P>(x, w);
  CHECK(harness::values(y.value()) == harness::Values{4, -4.5});
  double exact = 0;
  (void)perft::cross_entropy(x, w, {{0, 0}, {0, 1}}, 0.5, &exact);
  // log(e^4 + e^-4.5) = 4 + log(1 + e^-8.5), less the mean of 4 and -4.5.
  CHECK(support::close(exact, 4.25 + std::log1p(std::exp(-8.5)), {.abs = 1e-6}));
}

// Instantiates a model's modules in bf16 for this folder's tests, apart from the engine: together they compile for too
// long.

#include <catch2/catch.hpp>

#include "models/support/module_instances.hpp"
#include "ops/support/harness.hpp"

PERFT_TEST_MODULES(template, bf16)

TEST_CASE("a linear slot rounds once to bf16, or leaves that to whoever adds to it") {
  perft::Linear<perft::bf16> slot(perft::Weight<float>("w", harness::tensor<float>({1, 0x1p-9}, {1, 2})));
  const perft::Variable<perft::bf16> x(harness::tensor<perft::bf16>({1, 1}, {1, 2}));
  perft::ForwardContext<perft::bf16> context;
  CHECK(harness::values(slot.forward_unrounded(x, context).value()) == harness::Values{1 + 0x1p-9});
  CHECK(harness::values(slot.forward(x, context).value()) == harness::Values{1});
  CHECK(slot.in() == 2);
  CHECK(slot.out() == 1);
}

// The library in double against the naive reference in double, on the golden files of 64 experts top-8.

#include <catch2/catch.hpp>

#include "models/support/golden_f64.hpp"

TEST_CASE("double: logits, losses and every gradient are the reference's, olmoe-64x8") {
  models_test::compare_in_double("olmoe-64x8");
}

// The library in double against the naive reference in double, on the golden files of 8 and 4 experts.

#include <catch2/catch.hpp>

#include "models/support/golden_f64.hpp"

TEST_CASE("double: logits, losses and every gradient are the reference's, olmoe") {
  models_test::compare_in_double("olmoe");
}

TEST_CASE("double: logits, losses and every gradient are the reference's, mixtral") {
  models_test::compare_in_double("mixtral");
}

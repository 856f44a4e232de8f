// The learning-rate schedule against the values of transformers' formula.

#include "perft/train/schedule.hpp"

#include <catch2/catch.hpp>

TEST_CASE("linear_schedule warms up from 0 and decays to 0", "[train][schedule]") {
  CHECK(perft::linear_schedule(0, 100, 300) == 0.0);
  CHECK(perft::linear_schedule(1, 100, 300) == 0.01);
  CHECK(perft::linear_schedule(99, 100, 300) == 0.99);
  CHECK(perft::linear_schedule(100, 100, 300) == 1.0);
  CHECK(perft::linear_schedule(150, 100, 300) == 0.75);
  CHECK(perft::linear_schedule(299, 100, 300) == 0.005);
  CHECK(perft::linear_schedule(300, 100, 300) == 0.0);
  CHECK(perft::linear_schedule(400, 100, 300) == 0.0);
}

TEST_CASE("linear_schedule without warm-up, and with more warm-up than steps", "[train][schedule]") {
  CHECK(perft::linear_schedule(0, 0, 4) == 1.0);
  CHECK(perft::linear_schedule(3, 0, 4) == 0.25);
  CHECK(perft::linear_schedule(9, 100, 10) == 0.09);
  CHECK(perft::linear_schedule(100, 100, 100) == 0.0);
  CHECK_THROWS_WITH(perft::linear_schedule(-1, 0, 4),
                    "linear_schedule: step -1, warm-up 0 and total 4 must not be negative");
}

TEST_CASE("optimizer_steps counts the smaller last batch of every epoch", "[train][schedule]") {
  CHECK(perft::optimizer_steps(32, 16, 3) == 6);
  CHECK(perft::optimizer_steps(33, 16, 3) == 9);
  CHECK(perft::optimizer_steps(1, 16, 1) == 1);
  CHECK_THROWS_WITH(perft::optimizer_steps(1, 0, 1),
                    "optimizer_steps: 1 rows, batches of 0, 1 epochs, expected none negative and at least one row a "
                    "batch");
}

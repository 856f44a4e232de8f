// The validation split, the order of every epoch, and the cut into batches.

#include "perft/data/order.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <numeric>
#include <vector>

using Longs = std::vector<std::int64_t>;

TEST_CASE("split_rows cuts the rows into two parts that depend on the seed alone", "[data][order]") {
  const perft::RowSplit split = perft::split_rows(1000, 120, 42);
  CHECK(split.validation.size() == 120);
  CHECK(split.train.size() == 880);
  CHECK(std::is_sorted(split.train.begin(), split.train.end()));
  CHECK(std::is_sorted(split.validation.begin(), split.validation.end()));
  Longs all = split.train;
  all.insert(all.end(), split.validation.begin(), split.validation.end());
  std::sort(all.begin(), all.end());
  Longs expected(1000);
  std::iota(expected.begin(), expected.end(), 0);
  CHECK(all == expected);
  CHECK(perft::split_rows(1000, 120, 42).validation == split.validation);
  CHECK(perft::split_rows(1000, 120, 43).validation != split.validation);
  CHECK(split.validation.back() > 500);  // drawn from everywhere, not the first 120
  CHECK(perft::split_rows(5, 0, 1).train == Longs{0, 1, 2, 3, 4});
  CHECK_THROWS_WITH(perft::split_rows(120, 120, 1), "data: --val-size 120 leaves no row of 120 to train on; lower it");
}

TEST_CASE("epoch_order is a permutation that differs by epoch and seed", "[data][order]") {
  Longs rows(100);
  std::iota(rows.begin(), rows.end(), 1000);
  const Longs first = perft::epoch_order(rows, 0, 7);
  CHECK(std::is_permutation(first.begin(), first.end(), rows.begin(), rows.end()));
  CHECK(first != rows);
  CHECK(perft::epoch_order(rows, 0, 7) == first);
  CHECK(perft::epoch_order(rows, 1, 7) != first);
  CHECK(perft::epoch_order(rows, 0, 8) != first);
}

TEST_CASE("epoch_order puts every row at every place equally often", "[data][order]") {
  // 6000 shuffles of 4 rows: each of the 16 counts is binomial with mean 1500 and standard deviation 33.5.
  std::vector<Longs> counts(4, Longs(4, 0));
  for (std::int64_t epoch = 0; epoch < 6000; ++epoch) {
    const Longs order = perft::epoch_order({0, 1, 2, 3}, epoch, 3);
    for (std::size_t place = 0; place < 4; ++place) {
      ++counts[place][static_cast<std::size_t>(order[place])];
    }
  }
  for (const Longs& places : counts) {
    for (const std::int64_t count : places) {
      CHECK(std::abs(count - 1500) < 5 * 34);
    }
  }
}

TEST_CASE("pieces cover the range; the last may be shorter", "[data][order]") {
  const auto cut = perft::pieces(10, 4);
  REQUIRE(cut.size() == 3);
  CHECK(cut[1].begin == 4);
  CHECK(cut[1].end == 8);
  CHECK(cut[2].size() == 2);
  CHECK(perft::pieces(0, 4).empty());
  CHECK(perft::pieces(4, 4).size() == 1);
  CHECK_THROWS_WITH(perft::pieces(4, 0), "data: batches of 0 rows, expected at least 1");
}

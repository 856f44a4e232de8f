#include "perft/ops/low_rank_reduce.hpp"

#include <catch2/catch.hpp>  // test cases

#include "ops/support/low_rank_case.hpp"

using namespace harness;
using perft::EntryLists;

TEST_CASE("entry lists: by expert with tokens ascending; without ids every token reaches every expert in its slot") {
  const EntryLists routed(int_tensor({2, 0, 0, 2, 1, 0}, {3, 2}), 3, 4);
  CHECK(routed.count(0) == 3);
  CHECK(routed.count(3) == 0);
  CHECK(routed.token(0, 0) == 0);
  CHECK(routed.slot(0, 0) == 1);
  CHECK(routed.token(0, 1) == 1);
  CHECK(routed.slot(0, 1) == 0);
  CHECK(routed.token(0, 2) == 2);
  CHECK(routed.token(2, 1) == 1);
  CHECK(routed.slot(2, 1) == 1);
  const EntryLists dense({}, 5, 3);
  CHECK(dense.count(2) == 5);
  CHECK(dense.token(2, 4) == 4);
  CHECK(dense.slot(2, 4) == 2);
}

TEST_CASE("reduce: sums of more than one chunk and block, for the chosen parameter alone, by any number of threads") {
  const std::int64_t width = 300;  // two whole blocks of channels and a part
  auto bank = make_bank<double>(perft::DeltaForm::kLora, width, 2, {2, 1, 1}, 1);
  for (auto& expert : bank.experts) {
    expert->a.set_trainable(true);
  }
  bank[2].a.set_trainable(false);
  const std::int64_t entries = 150;
  const auto coefficients = numbers(entries * 2, 1);
  const auto rows = numbers(entries * width, 2);
  const auto run = [&] {
    for (auto& expert : bank.experts) {
      expert->a.clear_gradient();
    }
    perft::detail::reduce_low_rank_gradient<double>(
        bank, perft::detail::select_a<double>, [&](std::int64_t e) { return e == 0 ? entries : 0; },
        [&](std::int64_t, std::int64_t i) { return coefficients.data() + 2 * i; },
        [&](std::int64_t, std::int64_t i, std::int64_t first, std::int64_t, double*, double*) {
          return rows.data() + width * i + first;
        });
    return Bits().add(bank[0].a.gradient()).add(bank[1].a.gradient());
  };
  check_same_bits_for_any_threads(run);
  const auto channels = static_cast<std::size_t>(width);
  Values expected(2 * channels, 0.0);
  for (std::size_t i = 0; i < static_cast<std::size_t>(entries); ++i) {
    for (std::size_t q = 0; q < 2; ++q) {
      for (std::size_t c = 0; c < channels; ++c) {
        expected[q * channels + c] += coefficients[2 * i + q] * rows[channels * i + c];
      }
    }
  }
  CHECK(support::close(values(bank[0].a.gradient()), expected, {.rel_to_max = 1e-13}));
  CHECK(values(bank[1].a.gradient()) == Values(channels, 0.0));  // no entry: zeros, not nothing
  CHECK_FALSE(bank[2].a.gradient().defined());
  CHECK_FALSE(bank[0].b.gradient().defined());
}

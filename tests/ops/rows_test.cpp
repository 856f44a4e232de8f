#include "perft/ops/rows.hpp"

#include <catch2/catch.hpp>  // test cases

#include "ops/support/harness.hpp"

using namespace harness;
using perft::bf16;

TEST_CASE("rows: a row of the parameter type is itself, a bf16 row is widened exactly") {
  const std::vector<float> row{1, -2, 3};
  std::vector<float> scratch(3, 0.0F);
  CHECK(perft::widened(row.data(), scratch.data(), 3) == row.data());
  const std::vector<bf16> narrow{bf16(1.5F), bf16(-2.0F), bf16(0.25F)};
  CHECK(perft::widened(narrow.data(), scratch.data(), 3) == scratch.data());
  CHECK(scratch == std::vector<float>{1.5, -2, 0.25});
}

TEST_CASE("rows: storing and rounding go to the nearest bf16, ties to even") {
  const std::vector<float> row{1 + 0x1p-8F, 1 + 0x1p-7F + 0x1p-8F, 1 + 0x1p-8F + 0x1p-20F};
  const Values expected{1, 1 + 0x1p-6, 1 + 0x1p-7};
  std::vector<bf16> out(3);
  perft::store_rounded(row.data(), out.data(), 3);
  CHECK(values(perft::Tensor<bf16>::from(out, {3})) == expected);
  auto in_place = row;
  perft::round_to<bf16>(in_place.data(), 3);
  CHECK(values(perft::Tensor<float>::from(in_place, {3})) == expected);
  in_place = row;
  perft::round_to<float>(in_place.data(), 3);
  CHECK(in_place == row);
}

TEST_CASE("rows: a task has about 2^14 elements and at least one row") {
  CHECK(perft::row_grain(0) == 1 << 14);
  CHECK(perft::row_grain(16) == 1024);
  CHECK(perft::row_grain(1000) == 16);
  CHECK(perft::row_grain(1 << 20) == 1);
}

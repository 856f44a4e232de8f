// Ragged training batches: the shift by one, positions, and the padding token of `hf`.

#include "perft/data/batch.hpp"

#include <catch2/catch.hpp>
#include <cstdint>
#include <string>
#include <vector>

using perft::Batch;
using perft::EncodedRow;
using perft::PadRows;
using Ints = std::vector<std::int32_t>;

namespace {

/// Row 0 fills eight columns, row 1 is short and learned from its first token on, row 2 has its prompt masked.
std::vector<EncodedRow> three_rows() {
  return {{{10, 11, 12, 13, 14, 15, 16, 17}, {10, 11, 12, 13, 14, 15, 16, 17}},
          {{20, 21, 22}, {20, 21, 22}},
          {{30, 31, 32, 33}, {-100, -100, 32, 33}}};
}

}  // namespace

TEST_CASE("ignore: rows start at position 0 and never have their first token scored", "[data][batch]") {
  const Batch batch = perft::ragged_batch(three_rows(), 5, PadRows::ignore, 0, 1);
  CHECK(batch.ids == Ints{10, 11, 12, 13, 14, 15, 16, 17, 20, 21, 22, 30, 31, 32, 33});
  CHECK(batch.positions == Ints{0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 0, 1, 2, 3});
  CHECK(batch.row == Ints{5, 5, 5, 5, 5, 5, 5, 5, 6, 6, 6, 7, 7, 7, 7});
  CHECK(batch.column == batch.positions);
  CHECK(batch.loss_rows == Ints{0, 1, 2, 3, 4, 5, 6, 8, 9, 12, 13});
  CHECK(batch.targets == Ints{11, 12, 13, 14, 15, 16, 17, 21, 22, 32, 33});
  CHECK(batch.target_row == Ints{5, 5, 5, 5, 5, 5, 5, 6, 6, 7, 7});
  REQUIRE(batch.segments.size() == 3);
  CHECK(batch.segments[1].begin == 8);
  CHECK(batch.segments[1].queries == 3);
  CHECK(batch.segments[1].keys == 3);
  CHECK(batch.rows == 3);
  CHECK(batch.padded_length == 8);
  CHECK(perft::real_tokens(batch) == 15);
}

TEST_CASE("hf: one padding token predicts the first token of every learned left-padded row", "[data][batch]") {
  const std::vector<EncodedRow> rows = three_rows();
  CHECK(perft::padded_columns(rows) == 8);
  const Batch batch = perft::ragged_batch(rows, 0, PadRows::hf, 8, 1);
  CHECK(batch.positions == Ints{0, 1, 2, 3, 4, 5, 6, 7, 5, 6, 7, 4, 5, 6, 7, 0});
  CHECK(batch.column == Ints{0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 0, 1, 2, 3, 0});
  REQUIRE(batch.ids.size() == 16);
  CHECK(batch.ids.back() == 1);
  CHECK(batch.real.back() == 0);
  CHECK(batch.row.back() == -1);
  CHECK(batch.segments.back().begin == 15);
  CHECK(batch.segments.back().queries == 1);
  CHECK(batch.segments.back().keys == 0);
  // Row 0 has no padding column and row 2's first label is masked: only row 1's first token is added.
  CHECK(batch.loss_rows == Ints{0, 1, 2, 3, 4, 5, 6, 8, 9, 12, 13, 15});
  CHECK(batch.targets == Ints{11, 12, 13, 14, 15, 16, 17, 21, 22, 32, 33, 20});
  CHECK(batch.target_row == Ints{0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 1});
  CHECK(perft::real_tokens(batch) == 15);
}

TEST_CASE("hf: the padded length is that of the whole batch, and micro-batches together hold its targets",
          "[data][batch]") {
  const std::vector<EncodedRow> rows = three_rows();
  const std::int64_t columns = perft::padded_columns(rows);
  std::size_t targets = 0;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const Batch batch =
        perft::ragged_batch({rows.data() + r, 1}, static_cast<std::int32_t>(r), PadRows::hf, columns, 0);
    targets += batch.targets.size();
    CHECK(batch.row[0] == static_cast<std::int32_t>(r));
    CHECK(batch.padded_length == 8);
    CHECK(perft::real_tokens(batch) == static_cast<std::int64_t>(rows[r].ids.size()));
    CHECK(batch.segments.size() == (r == 1 ? 2U : 1U));  // a padding token only where a target needs it
  }
  CHECK(targets == 12);
}

TEST_CASE("padded_columns rounds up to the multiple", "[data][batch]") {
  const std::vector<EncodedRow> rows = {{Ints(9, 0), Ints(9, 0)}};
  CHECK(perft::padded_columns(rows) == 16);
  CHECK(perft::padded_columns(rows, 1) == 9);
  CHECK(perft::padded_columns({}) == 0);
}

TEST_CASE("ragged_batch refuses rows that contradict its contract", "[data][batch]") {
  const std::vector<EncodedRow> empty = {{{1}, {1}}, {{}, {}}};
  CHECK_THROWS_WITH(perft::ragged_batch(empty, 0, PadRows::ignore, 0, 0), "ragged_batch: row 1 has no tokens");
  const std::vector<EncodedRow> unequal = {{{1, 2}, {1}}};
  CHECK_THROWS_WITH(perft::ragged_batch(unequal, 0, PadRows::ignore, 0, 0),
                    "ragged_batch: row 0 has 1 labels, expected 2 (one per token)");
  CHECK_THROWS_WITH(perft::ragged_batch(three_rows(), 0, PadRows::hf, 7, 0),
                    "ragged_batch: row 0 has 8 tokens, expected at most 7 (columns of the padded batch)");
}

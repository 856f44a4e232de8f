// Duplicates inside the rows to train and across the split, counted by hand.

#include "perft/data/duplicates.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

using perft::Duplicates;
using perft::EncodedRow;
using perft::find_duplicates;
using perft::Row;
using perft::RowSplit;

namespace {

/// Rows whose tokens are the characters of instruction, input and output.
struct Rows {
  std::vector<Row> rows;
  std::vector<EncodedRow> encoded;

  Rows(std::initializer_list<Row> list) : rows(list) {
    for (const Row& row : rows) {
      EncodedRow e;
      for (const char c : row.instruction + "|" + row.input + "|" + row.output) {
        e.ids.push_back(c);
      }
      e.labels = e.ids;
      encoded.push_back(e);
    }
  }

  Duplicates of(const RowSplit& split) const { return find_duplicates(rows, encoded, split); }
};

const Rows kRows{{"a", "", "x", {}},  {"a", "", "x", {}}, {"a", "", "y", {}}, {"b", "", "x", {}},
                 {"a", "b", "x", {}}, {"a", "", "x", {}}, {"c", "", "z", {}}, {"ab", "", "x", {}}};

}  // namespace

TEST_CASE("find_duplicates counts rows to train that equal an earlier one", "[data][duplicates]") {
  const Duplicates all = kRows.of({{0, 1, 2, 3, 4, 5, 6, 7}, {}});
  CHECK(all.repeated == 2);  // rows 1 and 5 are row 0
  CHECK(all.seen_rows == 0);
  CHECK(all.seen_prompts == 0);
  CHECK(kRows.of({{0, 2, 3, 4, 6, 7}, {}}).repeated == 0);
}

TEST_CASE("find_duplicates tells a known row from a known prompt across the split", "[data][duplicates]") {
  const Duplicates across = kRows.of({{0, 2, 3, 4}, {1, 5, 6, 7}});
  CHECK(across.repeated == 0);
  CHECK(across.seen_rows == 2);     // 1 and 5 are trained as row 0; that row 2 has their prompt too counts nothing more
  CHECK(across.seen_prompts == 0);  // "ab" is not "a" with the input "b"
  const Duplicates prompt = kRows.of({{0, 1, 3}, {2, 4, 6}});
  CHECK(prompt.repeated == 1);
  CHECK(prompt.seen_rows == 0);
  CHECK(prompt.seen_prompts == 1);  // row 2 asks what row 0 asks, and answers y
  const Duplicates twice = kRows.of({{6}, {0, 1}});
  CHECK(twice.seen_rows == 0);  // the same row twice among the held-back ones is not trained
}

TEST_CASE("find_duplicates compares what the cutoff left", "[data][duplicates]") {
  Rows cut = kRows;
  cut.encoded[0].ids = cut.encoded[3].ids = {7, 8};
  const Duplicates found = cut.of({{0}, {3}});
  CHECK(found.seen_rows == 1);
  cut.encoded[3].ids = {7, 8, 9};
  CHECK(cut.of({{0}, {3}}).seen_rows == 0);
}

TEST_CASE("find_duplicates refuses lists of other lengths", "[data][duplicates]") {
  CHECK_THROWS_WITH(find_duplicates(kRows.rows, {}, {}),
                    "find_duplicates: 8 rows and 0 encoded ones, expected as many");
}

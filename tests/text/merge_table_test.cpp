#include "perft/text/merge_table.hpp"

#include <catch2/catch.hpp>
#include <vector>

using namespace perft;

TEST_CASE("a rule is found by its pair and has its index as rank") {
  std::vector<BpeRule> rules;
  for (std::int32_t i = 0; i < 5000; ++i) rules.push_back({i % 70, i / 70, i});
  const MergeTable table(rules);
  int wrong = 0;
  for (std::int32_t i = 0; i < 5000; ++i) {
    const BpeMerge merge = table.find(i % 70, i / 70);
    wrong += merge.rank == static_cast<std::uint32_t>(i) && merge.product == i ? 0 : 1;
  }
  CHECK(wrong == 0);
  CHECK(table.find(70, 0).rank == MergeTable::kNone);
  CHECK(table.find(0, 5000).rank == MergeTable::kNone);
  CHECK(table.find(-1, -1).rank == MergeTable::kNone);
}

TEST_CASE("of two rules for one pair the later counts") {
  const std::vector<BpeRule> rules = {{1, 2, 10}, {3, 4, 11}, {1, 2, 12}};
  CHECK(MergeTable(rules).find(1, 2).rank == 2);
  CHECK(MergeTable(rules).find(1, 2).product == 12);
}

TEST_CASE("a table without rules finds nothing") {
  CHECK(MergeTable().find(0, 0).rank == MergeTable::kNone);
  CHECK(MergeTable(std::vector<BpeRule>()).find(1, 2).rank == MergeTable::kNone);
}

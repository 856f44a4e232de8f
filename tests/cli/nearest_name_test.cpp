// Suggestions for mistyped names, and error lines that stay one line.

#include "examples/perft/nearest_name.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "examples/perft/report_error.hpp"

using perft::cli::did_you_mean;
using perft::cli::edit_distance;

TEST_CASE("edit_distance counts inserted, deleted, replaced and swapped letters", "[cli][nearest_name]") {
  CHECK(edit_distance("", "") == 0);
  CHECK(edit_distance("", "abc") == 3);
  CHECK(edit_distance("abc", "") == 3);
  CHECK(edit_distance("epoch", "epochs") == 1);
  CHECK(edit_distance("ab", "ba") == 1);
  CHECK(edit_distance("kitten", "sitting") == 3);
  CHECK(edit_distance("PERFT-R", "perft-r") == 0);
}

TEST_CASE("did_you_mean names the nearest valid name, or nothing", "[cli][nearest_name]") {
  const std::vector<std::string> names = {"--lr", "--epochs", "--eval-every"};
  CHECK(did_you_mean("--epoch", names) == "; did you mean --epochs?");
  CHECK(did_you_mean("--eval-evry", names) == "; did you mean --eval-every?");
  CHECK(did_you_mean("--colour", names).empty());
  CHECK(did_you_mean("x", {"ab"}).empty());  // as many edits as letters: nothing in common
  CHECK(did_you_mean("", {}).empty());
}

TEST_CASE("one_line keeps an error on one line, whatever names are in it", "[cli][report_error]") {
  CHECK(perft::cli::one_line("a\nb\r\tc\x1b[0m\x7f \xC3\xA9") == "a b  c [0m  \xC3\xA9");
}

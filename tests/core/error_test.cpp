#include "perft/core/error.hpp"

#include <array>             // a shape
#include <catch2/catch.hpp>  // test cases
#include <cstdint>           // extents
#include <ostream>           // a printed piece
#include <stdexcept>         // the common base
#include <string>            // pieces
#include <string_view>       // pieces
#include <vector>            // lists

using perft::check;
using perft::fail;

TEST_CASE("fail throws the type it is asked for with the joined text") {
  CHECK_THROWS_AS(fail("plain"), perft::Error);
  CHECK_THROWS_AS(fail<perft::ShapeError>("x"), perft::ShapeError);
  CHECK_THROWS_AS(fail<perft::ValueError>("x"), perft::ValueError);
  CHECK_THROWS_AS(fail<perft::IoError>("x"), perft::IoError);
  CHECK_THROWS_AS(fail<perft::UnsupportedError>("x"), perft::UnsupportedError);
  CHECK_THROWS_AS(fail<perft::NonFiniteError>("x"), perft::NonFiniteError);
  CHECK_THROWS_WITH(fail("linear: rank is ", 0, ", expected at least ", 1), "linear: rank is 0, expected at least 1");
}

TEST_CASE("one handler catches every error of the library") {
  CHECK_THROWS_AS(fail<perft::IoError>("x"), perft::Error);
  CHECK_THROWS_AS(fail<perft::ShapeError>("x"), std::runtime_error);
}

TEST_CASE("lists are printed as shapes, texts as texts") {
  const std::array<std::int64_t, 2> shape{512, 2048};
  const std::vector<std::int64_t> scalar;
  const std::string name = "w";
  const std::string_view op = "linear";
  CHECK_THROWS_WITH(fail(op, ": ", name, " is ", shape, ", expected ", scalar, ", a ", 'c'),
                    "linear: w is [512, 2048], expected [], a c");
  CHECK_THROWS_WITH(fail(std::vector<std::string>{"a", "b"}), "[a, b]");
}

TEST_CASE("check throws only when the condition is false") {
  CHECK_NOTHROW(check<perft::ShapeError>(1 + 1 == 2, "never"));
  CHECK_THROWS_AS(check<perft::ShapeError>(1 + 1 == 3, "x"), perft::ShapeError);
  CHECK_THROWS_WITH(check(false, "head: T is ", std::int64_t{7}), "head: T is 7");
}

namespace {

/// Counts how often it is printed.
struct Piece {
  static inline int printed = 0;

  friend std::ostream& operator<<(std::ostream& out, const Piece&) {
    ++printed;
    return out << "piece";
  }
};

}  // namespace

TEST_CASE("a passing check composes no message") {
  check(true, Piece{});
  CHECK(Piece::printed == 0);
  CHECK_THROWS_WITH(check(false, Piece{}), "piece");
  CHECK(Piece::printed == 1);
}

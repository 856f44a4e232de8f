#include "perft/core/shape.hpp"

#include <catch2/catch.hpp>  // test cases
#include <vector>            // extents

using perft::contiguous_strides;
using perft::Shape;
using perft::ShapeError;

TEST_CASE("shape: extents, rank and number of elements") {
  const Shape s{2, 3, 4};
  CHECK(s.rank() == 3);
  CHECK(s.size() == 3);
  CHECK(s[1] == 3);
  CHECK(s.numel() == 24);
  CHECK(std::vector<std::int64_t>(s.begin(), s.end()) == std::vector<std::int64_t>{2, 3, 4});
  CHECK(Shape{}.rank() == 0);
  CHECK(Shape{}.numel() == 1);
  CHECK(Shape{3, 0, 5}.numel() == 0);
  CHECK(Shape{1 << 20, 1 << 20}.numel() == std::int64_t{1} << 40);
}

TEST_CASE("shape: equal means the same rank and extents") {
  CHECK(Shape{2, 3} == Shape{2, 3});
  CHECK_FALSE(Shape{2, 3} == Shape{3, 2});
  CHECK_FALSE(Shape{2} == Shape{2, 1});
  CHECK_FALSE(Shape{} == Shape{1});
  Shape s{1, 2, 3, 4, 5};
  s[4] = 6;
  CHECK(s == Shape{1, 2, 3, 4, 6});
}

TEST_CASE("shape: row-major strides") {
  CHECK(contiguous_strides({2, 3, 4}) == Shape{12, 4, 1});
  CHECK(contiguous_strides({5}) == Shape{1});
  CHECK(contiguous_strides({}) == Shape{});
  CHECK(contiguous_strides({2, 0, 4}) == Shape{0, 4, 1});
}

TEST_CASE("shape: error texts") {
  CHECK_THROWS_AS((Shape{1, 1, 1, 1, 1, 1}), ShapeError);
  CHECK_THROWS_WITH((Shape{1, 1, 1, 1, 1, 1}), "shape: rank is 6, expected at most 5");
  CHECK_THROWS_AS((Shape{2, -1}), ShapeError);
  CHECK_THROWS_WITH((Shape{2, -1}), "shape: extents [2, -1] hold a negative number");
}

#include "perft/ops/columns.hpp"

#include <catch2/catch.hpp>  // test cases

#include "ops/support/harness.hpp"

using namespace harness;
using perft::Recording;
using perft::ShapeError;
using perft::Tape;
using perft::Tensor;
using perft::Variable;

TEMPLATE_TEST_CASE("first_columns: the columns, and a gradient padded with zeros", "", double, float, perft::bf16) {
  const auto x = tensor<TestType>({1, 2, 3, 4, 5, 6}, {2, 3});
  Tape tape;
  Recording recording(tape);
  const Leaf<TestType> input(tape, x);
  const auto y = perft::first_columns(input.variable, 2);
  CHECK(values(y.value()) == Values{1, 2, 4, 5});
  CHECK(y.value().contiguous());
  CHECK(tape.saved_bytes() == 0);
  CHECK(tape.node(0).name() == "first_columns");
  tape.add_gradient(y.edge(), tensor<TestType>({7, 8, 9, 10}, {2, 2}));
  tape.backward();
  CHECK(values(tape.take_gradient<TestType>(input.edge)) == Values{7, 8, 0, 9, 10, 0});
}

TEST_CASE("first_columns: none, all, and no rows") {
  const auto x = tensor<float>({1, 2}, {1, 2});
  CHECK(perft::first_columns(Variable<float>(x), 0).shape() == perft::Shape{1, 0});
  CHECK(values(perft::first_columns(Variable<float>(x), 2).value()) == Values{1, 2});
  CHECK(perft::first_columns(Variable<float>(Tensor<float>::zeros({0, 3})), 2).shape() == perft::Shape{0, 2});
}

TEST_CASE("first_columns: error texts") {
  CHECK(error_text<ShapeError>([] {
          perft::first_columns(Variable<float>(Tensor<float>::zeros({2, 3})), 4);
        }) == "slice: [0, 4) of dimension 1 of [2, 3]");
  CHECK(error_text<ShapeError>([] { perft::first_columns(Variable<float>(Tensor<float>::zeros({2})), 1); }) ==
        "slice: [0, 1) of dimension 1 of [2]");
}

#include "perft/autograd/parameter.hpp"

#include <catch2/catch.hpp>  // test cases

#include "ops/support/harness.hpp"

using namespace harness;
using perft::Parameter;
using perft::ValueError;

TEST_CASE("parameter: frozen until said otherwise, and a frozen one has no gradient to add into") {
  Parameter<float> p("q_proj.weight", tensor<float>({1, 2}, {2}));
  CHECK(p.name() == "q_proj.weight");
  CHECK_FALSE(p.trainable());
  CHECK_FALSE(p.stored_transposed());
  CHECK(error_text<ValueError>([&] { p.gradient_accumulator(); }) ==
        "parameter 'q_proj.weight' is frozen: it has no gradient to add into");
  CHECK_FALSE(p.gradient().defined());
}

TEST_CASE("parameter: a gradient starts as zeros of its shape, stays until cleared, and goes with freezing") {
  Parameter<double> p("w", tensor<double>({1, 2, 3}, {1, 3}));
  p.set_trainable(true);
  CHECK_FALSE(p.gradient().defined());
  CHECK(values(p.gradient_accumulator()) == Values{0, 0, 0});
  CHECK(p.gradient().shape() == perft::Shape{1, 3});
  p.gradient_accumulator().mutable_data()[1] = 5;
  CHECK(values(p.gradient_accumulator()) == Values{0, 5, 0});
  p.set_trainable(true);
  CHECK(p.gradient().defined());
  p.clear_gradient();
  CHECK_FALSE(p.gradient().defined());
  CHECK(p.trainable());
  p.gradient_accumulator();
  p.set_trainable(false);
  CHECK_FALSE(p.gradient().defined());
  CHECK(values(p.value()) == Values{1, 2, 3});
}

TEST_CASE("parameter: set() replaces name and value and drops the gradient") {
  Parameter<float> p;
  p.set_trainable(true);
  p.set("a", tensor<float>({1}, {1}));
  p.gradient_accumulator();
  p.set("b", tensor<float>({1, 2}, {2}));
  CHECK(p.name() == "b");
  CHECK_FALSE(p.gradient().defined());
  CHECK(values(p.gradient_accumulator()) == Values{0, 0});
  p.set_stored_transposed(true);
  CHECK(p.stored_transposed());
  p.mutable_value().mutable_data()[0] = 7;
  CHECK(values(p.value()) == Values{7, 2});
}

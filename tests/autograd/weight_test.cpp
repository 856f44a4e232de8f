#include "perft/autograd/weight.hpp"

#include <catch2/catch.hpp>  // test cases

#include "ops/support/harness.hpp"

using namespace harness;
using perft::DType;
using perft::Weight;

TEST_CASE("weight: a mapped matrix has no parameter") {
  const auto w = frozen<float>("up", numbers(6, 1), DType::bf16, 2, 3).weight;
  CHECK(w.name() == "up");
  CHECK(w.rows() == 2);
  CHECK(w.cols() == 3);
  CHECK(w.dtype() == DType::bf16);
  CHECK(w.trained() == nullptr);
  CHECK(w.parameter() == nullptr);
  CHECK(w.operand().data == w.data());
  CHECK(w.operand().dtype == DType::bf16);
  CHECK(w.operand().row_stride == 3);
  CHECK(w.operand().col_stride == 1);
  CHECK(w.transposed().row_stride == 1);
  CHECK(w.transposed().col_stride == 3);
}

TEST_CASE("weight: made trainable it owns an exactly widened copy, once") {
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    auto stored = frozen<float>("up", numbers(6, 1), dtype, 2, 3);
    auto& parameter = stored.weight.make_trainable();
    CHECK(values(parameter.value()) == stored.values);
    CHECK(parameter.value().shape() == perft::Shape{2, 3});
    CHECK(parameter.name() == "up");
    CHECK(stored.weight.trained() == &parameter);
    CHECK(stored.weight.dtype() == DType::f32);
    CHECK(stored.weight.data() == parameter.value().data());
    parameter.mutable_value().mutable_data()[0] = 42;
    CHECK(&stored.weight.make_trainable() == &parameter);
    CHECK(parameter.value().data()[0] == 42);
    parameter.set_trainable(false);
    CHECK(stored.weight.trained() == nullptr);
    CHECK(stored.weight.parameter() == &parameter);
  }
}

TEST_CASE("weight: an owned matrix is frozen until said otherwise") {
  Weight<double> w("router", tensor<double>(numbers(6, 1), {3, 2}));
  CHECK(w.name() == "router");
  CHECK(w.rows() == 3);
  CHECK(w.cols() == 2);
  CHECK(w.dtype() == DType::f64);
  CHECK(w.trained() == nullptr);
  CHECK(w.parameter() != nullptr);
  CHECK(w.make_trainable().trainable());
}

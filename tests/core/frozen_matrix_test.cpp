#include "perft/core/frozen_matrix.hpp"

#include <catch2/catch.hpp>  // test cases

#include "ops/support/harness.hpp"

using namespace harness;
using perft::DType;
using perft::FrozenMatrix;
using perft::UnsupportedError;
using perft::widen_storage;

TEMPLATE_TEST_CASE("widen_storage: every stored float format, from any address, any length", "", float, double) {
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32, DType::f64}) {
    for (const std::int64_t n : {0, 1, 3, 511, 512, 513, 1100}) {  // 512: the widening buffer
      CAPTURE(static_cast<int>(dtype), n);
      Values v = numbers(n, 1, 3.0);
      if (n > 5) {
        v[0] = 0.0;
        v[1] = -0.0;
        v[2] = 0x1p-20;  // subnormal in f16
        v[3] = 65504.0;  // the largest f16
        v[4] = -0x1p-24;
      }
      const auto stored = frozen<TestType>("w", v, dtype, 1, n);
      std::vector<TestType> out(static_cast<std::size_t>(n) + 1, TestType{42});
      widen_storage(stored.weight.data(), dtype, out.data(), n);
      CHECK(out.back() == TestType{42});
      out.pop_back();
      const auto shape = perft::Shape{n};
      CHECK(Bits().add(perft::Tensor<TestType>::from(out, shape)) ==
            Bits().add(tensor<TestType>(stored.values, shape)));
    }
  }
}

TEST_CASE("widen_storage: what is not a float is refused") {
  const std::int64_t integer = 0;
  float out = 0;
  for (const auto& [dtype, text] : std::vector<std::pair<DType, std::string>>{
           {DType::i64, "weights of type I64, expected BF16, F16, F32 or F64"},
           {DType::boolean, "weights of type BOOL, expected BF16, F16, F32 or F64"},
           {DType::u8, "weights of type U8, expected BF16, F16, F32 or F64"}}) {
    CHECK(error_text<UnsupportedError>([&] { widen_storage(&integer, dtype, &out, 1); }) == text);
  }
}

TEST_CASE("frozen_matrix: says what it is and keeps its owner alive") {
  auto owner = std::make_shared<std::vector<std::byte>>(100);
  const std::weak_ptr<std::vector<std::byte>> watch = owner;
  {
    const FrozenMatrix<> w("mlp.gate.weight", owner->data() + 1, DType::bf16, 4, 5, owner);
    owner.reset();
    CHECK(w.name() == "mlp.gate.weight");
    CHECK(w.rows() == 4);
    CHECK(w.cols() == 5);
    CHECK(w.bytes() == 40);
    CHECK(w.dtype() == DType::bf16);
    CHECK(w.defined());
    CHECK_FALSE(watch.expired());
  }
  CHECK(watch.expired());
  CHECK_FALSE(FrozenMatrix<>().defined());
  CHECK(FrozenMatrix<>().bytes() == 0);
}

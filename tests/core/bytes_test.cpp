#include "perft/core/vec/bytes.hpp"

#include <catch2/catch.hpp>  // test cases

#include "ops/support/harness.hpp"

using namespace harness;
using perft::DType;
using perft::UnsupportedError;

TEMPLATE_TEST_CASE("convert_bytes: every stored float format, from any address, any length", "", float, double) {
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32, DType::f64}) {
    for (const std::int64_t n : {0, 1, 3, 255, 256, 257, 600}) {  // 256: the widening buffer
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
      perft::vec::convert_bytes(stored.weight.data(), dtype, out.data(), n);
      CHECK(out.back() == TestType{42});
      out.pop_back();
      const auto shape = perft::Shape{n};
      CHECK(Bits().add(perft::Tensor<TestType>::from(out, shape)) ==
            Bits().add(tensor<TestType>(stored.values, shape)));
    }
  }
}

TEST_CASE("convert_bytes: what is not a float is refused") {
  const std::int64_t integer = 0;
  float out = 0;
  for (const auto& [dtype, text] : std::vector<std::pair<DType, std::string>>{
           {DType::i64, "cannot read numbers of type I64, expected F64, F32, F16 or BF16"},
           {DType::boolean, "cannot read numbers of type BOOL, expected F64, F32, F16 or BF16"},
           {DType::u8, "cannot read numbers of type U8, expected F64, F32, F16 or BF16"}}) {
    CHECK(error_text<UnsupportedError>([&] { perft::vec::convert_bytes(&integer, dtype, &out, 1); }) == text);
  }
}

#include "perft/io/tensor_entry.hpp"

#include <bit>               // NaN payloads
#include <catch2/catch.hpp>  // test cases
#include <cmath>             // std::signbit
#include <cstdint>           // integers
#include <limits>            // infinity
#include <string>            // texts
#include <vector>            // values

#include "io/temp_folder.hpp"

using perft::bf16;
using perft::DType;
using perft::IoError;
using perft::read_as;
using perft::TensorEntry;

namespace {

/// A tensor over the values' bytes at an odd address, so that an unaligned read would show under UBSan.
class OddTensor {
 public:
  template <class T>
  OddTensor(DType dtype, const std::vector<T>& values) : bytes_(values.size() * sizeof(T) + 1) {
    if (!values.empty()) std::memcpy(bytes_.data() + 1, values.data(), values.size() * sizeof(T));
    entry_.name = "t";
    entry_.path = "f";
    entry_.dtype = dtype;
    entry_.shape = {static_cast<std::int64_t>(values.size())};
    entry_.data = bytes_.data() + 1;
    entry_.bytes = values.size() * sizeof(T);
  }

  const TensorEntry& entry() const { return entry_; }

 private:
  std::vector<std::byte> bytes_;
  TensorEntry entry_;
};

template <class To, class From>
std::vector<To> convert(DType dtype, const std::vector<From>& values) {
  return read_as<To>(OddTensor(dtype, values).entry());
}

/// The value of one binary16 word.
double half(std::uint16_t word) {
  return convert<double>(DType::f16, std::vector<std::uint16_t>{word})[0];
}

}  // namespace

TEST_CASE("dtype names go both ways") {
  for (const DType type : {DType::f64, DType::f32, DType::f16, DType::bf16, DType::i64, DType::i32, DType::i16,
                           DType::i8, DType::u8, DType::boolean}) {
    CHECK(perft::dtype_from_name(perft::dtype_name(type)) == type);
  }
  CHECK_FALSE(perft::dtype_from_name("f32"));
  CHECK_FALSE(perft::dtype_from_name(""));
}

TEST_CASE("sizes are products, or nothing where they overflow") {
  CHECK(perft::tensor_bytes({}, DType::f32) == 4);
  CHECK(perft::tensor_bytes({3, 0, 5}, DType::f64) == 0);
  CHECK(perft::tensor_bytes({3, 5}, DType::bf16) == 30);
  CHECK(perft::tensor_bytes({INT64_MAX}, DType::u8) == INT64_MAX);
  CHECK_FALSE(perft::tensor_bytes({INT64_MAX}, DType::bf16));
  CHECK_FALSE(perft::tensor_bytes({1LL << 32, 1LL << 31}, DType::u8));
}

TEST_CASE("real dtypes widen exactly from any address") {
  CHECK(convert<float>(DType::f32, std::vector<float>{0.1F, -2.0F}) == std::vector<float>{0.1F, -2.0F});
  CHECK(convert<double>(DType::f32, std::vector<float>{0.1F}) == std::vector<double>{static_cast<double>(0.1F)});
  CHECK(convert<double>(DType::f64, std::vector<double>{0.1}) == std::vector<double>{0.1});
  CHECK(convert<float>(DType::bf16, std::vector<bf16>{bf16(1.5F), bf16(-3.0F)}) == std::vector<float>{1.5F, -3.0F});
  CHECK(convert<bf16>(DType::bf16, std::vector<std::uint16_t>{0x7fc1})[0].bits == 0x7fc1);  // copied, not converted
  CHECK(convert<float>(DType::f32, std::vector<float>{}).empty());
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK(convert<double>(DType::f32, std::vector<float>{-infinity})[0] == -static_cast<double>(infinity));
  CHECK(std::isnan(convert<double>(DType::f32, std::vector<float>{std::nanf("")})[0]));
  CHECK(std::signbit(convert<double>(DType::f32, std::vector<float>{-0.0F})[0]));
}

TEST_CASE("every kind of binary16 is read") {
  CHECK(half(0x0000) == 0.0);
  CHECK(std::signbit(half(0x8000)));
  CHECK(half(0x0001) == 0x1p-24);    // the smallest subnormal
  CHECK(half(0x03ff) == 0x3ffp-24);  // the largest
  CHECK(half(0x0400) == 0x1p-14);    // the smallest normal
  CHECK(half(0x3c00) == 1.0);
  CHECK(half(0x3c01) == 1.0 + 0x1p-10);
  CHECK(half(0xc100) == -2.5);
  CHECK(half(0x7bff) == 65504.0);  // the largest
  CHECK(half(0x7c00) == std::numeric_limits<double>::infinity());
  CHECK(half(0xfc00) == -std::numeric_limits<double>::infinity());
  CHECK(std::isnan(half(0x7e00)));
  CHECK(convert<float>(DType::f16, std::vector<std::uint16_t>{0x0001})[0] == 0x1p-24F);
}

TEST_CASE("narrowing is done where it is exact and refused where not") {
  CHECK(convert<float>(DType::f64, std::vector<double>{0.5, -3.0}) == std::vector<float>{0.5F, -3.0F});
  CHECK(std::isnan(convert<float>(DType::f64, std::vector<double>{std::nan("")})[0]));
  CHECK_THROWS_WITH(convert<float>(DType::f64, std::vector<double>{0.5, 0.1}),
                    "f: tensor \"t\": element 1 (F64) cannot be held exactly in 32 bits, expected values in range; "
                    "write a narrower dtype");
  CHECK_THROWS_AS(convert<bf16>(DType::f32, std::vector<float>{1.001F}), IoError);
  CHECK_THROWS_AS(convert<float>(DType::f64, std::vector<double>{1e300}), IoError);
}

TEST_CASE("integer dtypes widen exactly and narrow only in range") {
  const std::int64_t big = 1LL << 40;
  CHECK(convert<std::int64_t>(DType::i64, std::vector<std::int64_t>{-100, big}) ==
        std::vector<std::int64_t>{-100, big});
  CHECK(convert<std::int64_t>(DType::i32, std::vector<std::int32_t>{-7}) == std::vector<std::int64_t>{-7});
  CHECK(convert<std::int64_t>(DType::i16, std::vector<std::int16_t>{-7}) == std::vector<std::int64_t>{-7});
  CHECK(convert<std::int64_t>(DType::i8, std::vector<std::int8_t>{-7}) == std::vector<std::int64_t>{-7});
  CHECK(convert<std::int64_t>(DType::u8, std::vector<std::uint8_t>{255}) == std::vector<std::int64_t>{255});
  CHECK(convert<std::int64_t>(DType::boolean, std::vector<std::uint8_t>{1, 0}) == std::vector<std::int64_t>{1, 0});
  CHECK(convert<std::int32_t>(DType::i64, std::vector<std::int64_t>{-100}) == std::vector<std::int32_t>{-100});
  CHECK_THROWS_WITH(convert<std::int32_t>(DType::i64, std::vector<std::int64_t>{0, 0, big}),
                    "f: tensor \"t\": element 2 (I64) cannot be held exactly in 32 bits, expected values in range; "
                    "write a narrower dtype");
  CHECK_THROWS_AS(convert<std::uint8_t>(DType::i64, std::vector<std::int64_t>{-1}), IoError);
}

TEST_CASE("real and integer dtypes are not mixed") {
  CHECK_THROWS_WITH(convert<float>(DType::i64, std::vector<std::int64_t>{1}),
                    "f: tensor \"t\": dtype is I64, expected a floating-point dtype; write the tensor as one");
  CHECK_THROWS_WITH(convert<std::int64_t>(DType::f32, std::vector<float>{1}),
                    "f: tensor \"t\": dtype is F32, expected an integer dtype; write the tensor as one");
}

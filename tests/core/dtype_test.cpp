#include "perft/core/dtype.hpp"

#include <bit>               // float bits
#include <catch2/catch.hpp>  // test cases
#include <cmath>             // std::isnan, std::nextafter
#include <cstdint>           // bits
#include <limits>            // infinities
#include <type_traits>       // Param

using perft::bf16;
using perft::DType;

namespace {

std::uint32_t bits_of(float x) {
  return std::bit_cast<std::uint32_t>(x);
}

float float_of(std::uint32_t bits) {
  return std::bit_cast<float>(bits);
}

/// Rounding to nearest even by the definition: the two neighbours, their distances in exact arithmetic, ties by the
/// last bit. Magnitudes only; `upper` is the truncated pattern of a finite number.
std::uint16_t nearest_even(std::uint32_t bits) {
  const auto upper = static_cast<std::uint16_t>(bits >> 16);
  const double value = static_cast<double>(float_of(bits & 0x7fffffffU));
  const double below = static_cast<double>(float_of(static_cast<std::uint32_t>(upper & 0x7fffU) << 16));
  // The neighbour above the largest finite bf16 is 2^128, which a double holds and where rounding gives infinity.
  const std::uint32_t next = (static_cast<std::uint32_t>(upper & 0x7fffU) + 1) << 16;
  const double above = next == 0x7f800000U ? 0x1.0p128 : static_cast<double>(float_of(next));
  const double down = value - below;
  const double up = above - value;
  const bool go_up = up < down || (up == down && (upper & 1U) != 0);
  return static_cast<std::uint16_t>(upper + (go_up ? 1 : 0));
}

}  // namespace

TEST_CASE("every bf16 survives the way through float") {
  for (std::uint32_t upper = 0; upper <= 0xffff; ++upper) {
    const bf16 x = bf16::from_bits(static_cast<std::uint16_t>(upper));
    const float wide = x;
    REQUIRE(bits_of(wide) == upper << 16);
    if (!std::isnan(wide)) {
      REQUIRE(bf16(wide).bits == upper);
    }
  }
}

TEST_CASE("rounding is to nearest, ties to even, over every upper pattern") {
  for (std::uint32_t upper = 0; upper <= 0xffff; ++upper) {
    if ((upper & 0x7f80U) == 0x7f80U) {
      continue;  // infinity and NaN have their own test
    }
    for (const std::uint32_t lower : {0x0000U, 0x0001U, 0x7fffU, 0x8000U, 0x8001U, 0xffffU}) {
      const std::uint32_t bits = (upper << 16) | lower;
      if (bf16(float_of(bits)).bits != nearest_even(bits)) {
        CAPTURE(upper, lower);
        REQUIRE(bf16(float_of(bits)).bits == nearest_even(bits));
      }
    }
  }
}

TEST_CASE("rounding by hand") {
  CHECK(bf16(1.0F).bits == 0x3f80);
  CHECK(bf16(-2.0F).bits == 0xc000);
  CHECK(bf16(float_of(0x3f808000)).bits == 0x3f80);  // halfway, even below
  CHECK(bf16(float_of(0x3f818000)).bits == 0x3f82);  // halfway, even above
  CHECK(bf16(float_of(0x3f808001)).bits == 0x3f81);
  CHECK(bf16(float_of(0x3fffffff)).bits == 0x4000);  // the carry goes into the exponent
  CHECK(bf16(3.14159274F).bits == 0x4049);
}

TEST_CASE("signed zeros and subnormals") {
  CHECK(bf16(0.0F).bits == 0x0000);
  CHECK(bf16(-0.0F).bits == 0x8000);
  CHECK(bf16(float_of(0x00000001)).bits == 0x0000);
  CHECK(bf16(float_of(0x00008000)).bits == 0x0000);  // halfway to the smallest subnormal, zero is even
  CHECK(bf16(float_of(0x00008001)).bits == 0x0001);
  CHECK(bf16(float_of(0x80018000)).bits == 0x8002);
  CHECK(bf16(float_of(0x007fffff)).bits == 0x0080);  // up into the normals
}

TEST_CASE("overflow and infinity") {
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK(bf16(infinity).bits == 0x7f80);
  CHECK(bf16(-infinity).bits == 0xff80);
  CHECK(bf16(float_of(0x7f7f7fff)).bits == 0x7f7f);  // just below halfway: the largest finite bf16
  CHECK(bf16(float_of(0x7f7f8000)).bits == 0x7f80);  // halfway: infinity, as IEEE rounds
  CHECK(bf16(-std::numeric_limits<float>::max()).bits == 0xff80);
}

TEST_CASE("every NaN stays a quiet NaN of its sign") {
  for (const std::uint32_t sign : {0x00000000U, 0x80000000U}) {
    for (std::uint32_t upper = 0; upper <= 0x7f; ++upper) {
      for (const std::uint32_t lower : {0x0000U, 0x0001U, 0x7fffU, 0x8000U, 0xffffU}) {
        const std::uint32_t bits = sign | 0x7f800000U | (upper << 16) | lower;
        if ((bits & 0x007fffffU) == 0) {
          continue;  // infinity
        }
        const bf16 x(float_of(bits));
        CAPTURE(bits);
        REQUIRE(std::isnan(static_cast<float>(x)));
        REQUIRE((x.bits & 0x8040U) == ((sign >> 16) | 0x40U));
      }
    }
  }
}

TEST_CASE("a double is rounded through float") {
  CHECK(bf16(1.0).bits == 0x3f80);
  CHECK(bf16(1e300).bits == 0x7f80);
  CHECK(bf16(-3.0).bits == 0xc040);
}

TEST_CASE("conversion is a constant expression and a default bf16 is zero") {
  static_assert(bf16(1.5F).bits == 0x3fc0);
  static_assert(static_cast<float>(bf16::from_bits(0x4000)) == 2.0F);
  CHECK(bf16().bits == 0);
}

TEST_CASE("sizes and names are those of safetensors") {
  struct Row {
    DType type;
    std::size_t size;
    const char* name;
  };

  for (const Row& row :
       {Row{DType::f64, 8, "F64"}, Row{DType::f32, 4, "F32"}, Row{DType::f16, 2, "F16"}, Row{DType::bf16, 2, "BF16"},
        Row{DType::i64, 8, "I64"}, Row{DType::i32, 4, "I32"}, Row{DType::i16, 2, "I16"}, Row{DType::i8, 1, "I8"},
        Row{DType::u8, 1, "U8"}, Row{DType::boolean, 1, "BOOL"}}) {
    CHECK(perft::dtype_name(row.type) == row.name);
    CHECK(perft::dtype_size(row.type) == row.size);
  }
}

TEST_CASE("types map to their tags, and parameters are at least float") {
  CHECK(perft::dtype_of<double> == DType::f64);
  CHECK(perft::dtype_of<float> == DType::f32);
  CHECK(perft::dtype_of<bf16> == DType::bf16);
  CHECK(perft::dtype_of<std::int64_t> == DType::i64);
  CHECK(perft::dtype_of<std::int32_t> == DType::i32);
  CHECK(perft::dtype_of<std::uint8_t> == DType::u8);
  CHECK(std::is_same_v<perft::Param<bf16>, float>);
  CHECK(std::is_same_v<perft::Param<float>, float>);
  CHECK(std::is_same_v<perft::Param<double>, double>);
  CHECK_FALSE(perft::ComputeType<std::int32_t>);
}

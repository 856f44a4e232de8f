// The checker itself: everything that a comparison may not let through.

#include "support/close.hpp"

#include <array>
#include <catch2/catch.hpp>
#include <limits>
#include <sstream>
#include <vector>

using perft::bf16;
using support::close;
using support::ulp_distance;

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

std::string text(const support::CloseResult& result) {
  std::ostringstream out;
  out << result;
  return out.str();
}

}  // namespace

TEST_CASE("close accepts what is within the tolerance and nothing more", "[support]") {
  const std::vector<double> e{1.0, -4.0, 2.0};
  CHECK(close(e, e, {}));
  CHECK(close(std::vector<double>{1.0, -4.0, 2.5}, e, {.abs = 0.5}));
  CHECK_FALSE(close(std::vector<double>{1.0, -4.0, 2.5}, e, {.abs = 0.499}));
  CHECK(close(std::vector<double>{1.0, -4.0, 2.5}, e, {.rel_to_max = 0.125}));  // of 4, the largest magnitude
  CHECK_FALSE(close(std::vector<double>{1.0, -4.0, 2.5}, e, {.rel_to_max = 0.124}));
  CHECK(close(std::vector<double>{1.0, -4.0, 2.5}, e, {.abs = 0.25, .rel_to_max = 0.0625}));  // the two add up
  CHECK_FALSE(close(std::vector<double>{1.0, -4.0, 2.0000001}, e, {}));
}

TEST_CASE("close looks at the difference's magnitude whatever the signs and the order", "[support]") {
  for (const double a : {-3.0, -1.0, 1.0, 3.0}) {
    for (const double b : {-3.0, -1.0, 1.0, 3.0}) {
      const std::vector<double> va{a}, vb{b};
      CHECK(static_cast<bool>(close(va, vb, {.abs = 1.0})) == (a == b));
      CHECK(static_cast<bool>(close(va, vb, {.abs = 1.0})) == static_cast<bool>(close(vb, va, {.abs = 1.0})));
    }
  }
}

TEST_CASE("close: a wild actual entry does not widen its own tolerance", "[support]") {
  CHECK_FALSE(close(std::vector<double>{1.0, 1e6}, {1.0, 1.0}, {.rel_to_max = 0.9}));
  CHECK_FALSE(close(std::vector<double>{1.0, 1.0}, {1.0, 1e6}, {.rel_to_max = 0.9}));
  CHECK_FALSE(close(std::vector<double>{1e308}, {-1e308}, {.abs = 1e308}));  // the difference overflows
}

TEST_CASE("close rejects NaN and infinity on either side, equal or not", "[support]") {
  for (const double bad : {kNan, kInf, -kInf}) {
    for (const std::size_t at : {0U, 1U, 2U}) {
      std::vector<double> good{1.0, 2.0, 3.0}, broken = good;
      broken[at] = bad;
      CHECK_FALSE(close(broken, good, {.abs = 1e300}));
      CHECK_FALSE(close(good, broken, {.abs = 1e300}));
      CHECK_FALSE(close(broken, broken, {.abs = 1e300}));
      CHECK_THAT(text(close(broken, good, {})), Catch::StartsWith("not finite at [" + std::to_string(at) + "]"));
    }
  }
  CHECK_FALSE(close(std::vector<float>{std::numeric_limits<float>::quiet_NaN()}, {0.0}, {.abs = 1.0}));
  CHECK_FALSE(close(std::vector<bf16>{bf16(std::numeric_limits<float>::infinity())}, {0.0}, {.abs = 1.0}));
}

TEST_CASE("close rejects unequal lengths, and emptiness unless it is asked for", "[support]") {
  const std::vector<double> none, one{1.0}, two{1.0, 1.0};
  CHECK_FALSE(close(one, two, {.abs = 1.0}));
  CHECK_FALSE(close(two, one, {.abs = 1.0}));
  CHECK_FALSE(close(none, one, {.abs = 1.0, .allow_empty = true}));
  CHECK_FALSE(close(one, none, {.abs = 1.0, .allow_empty = true}));
  CHECK_FALSE(close(none, none, {.abs = 1.0}));
  CHECK(close(none, none, {.allow_empty = true}));
  CHECK(text(close(one, two, {})) == "actual has 1 entries, expected has 2");
}

TEST_CASE("close rejects a senseless tolerance", "[support]") {
  const std::vector<double> one{1.0};
  for (const double bad : {-1e-6, kNan, kInf}) {
    CHECK_FALSE(close(one, one, {.abs = bad}));
    CHECK_FALSE(close(one, one, {.rel_to_max = bad}));
    CHECK_FALSE(close(one, one, {.abs = bad, .rel_to_max = 1.0}));  // the other half does not make up for it
    CHECK_FALSE(close(one, one, {.abs = 1.0, .rel_to_max = bad}));
  }
}

TEST_CASE("close names the worst index and both values", "[support]") {
  const auto result = close(std::vector<double>{1.0, -2.5, 3.1}, {1.0, -2.0, 3.0}, {.abs = 0.25});
  CHECK_FALSE(result);
  CHECK(result.worst_index == 1);
  CHECK(result.worst_difference == 0.5);
  CHECK(text(result) ==
        "worst at [1] of 3: actual -2.5, expected -2, difference 0.5 = 0.167 of the largest expected entry 3, "
        "allowed 0.25");
}

TEST_CASE("close takes vectors, spans and arrays of double, float and bf16, mixed", "[support]") {
  const std::array<float, 2> f{0.5F, -0.25F};
  const std::vector<bf16> b{bf16(0.5F), bf16(-0.25F)};
  const std::vector<double> d{0.5, -0.25};
  CHECK(close(f, b, {}));
  CHECK(close(std::span<const bf16>(b), d, {}));
  CHECK(close(std::span(f).first(1), {0.5}, {}));
  CHECK(close(1.0F, 1.0, {}));
  CHECK_FALSE(close(1.0, 1.5, {.abs = 0.25}));
  CHECK_FALSE(close(std::vector<bf16>{bf16(1.0F)}, std::vector<float>{1.001F}, {.abs = 1e-4}));
}

TEST_CASE("ulp_distance counts representable values", "[support]") {
  CHECK(ulp_distance(1.0, 1.0) == 0);
  CHECK(ulp_distance(0.0F, -0.0F) == 0);
  CHECK(ulp_distance(1.0F, std::nextafter(1.0F, 2.0F)) == 1);
  CHECK(ulp_distance(std::nextafter(1.0, 0.0), 1.0) == 1);
  CHECK(ulp_distance(-1.0F, std::nextafter(-1.0F, -2.0F)) == 1);
  CHECK(ulp_distance(std::numeric_limits<float>::denorm_min(), -std::numeric_limits<float>::denorm_min()) == 2);
  CHECK(ulp_distance(bf16(1.0F), bf16(1.0078125F)) == 1);
  CHECK(ulp_distance(bf16(-1.0F), bf16(1.0F)) == 2 * 0x3f80);
  CHECK(ulp_distance(1.0F, 2.0F) == 1U << 23);
  CHECK(ulp_distance(-kInf, kInf) == 2 * 0x7ff0000000000000ULL);
  CHECK(ulp_distance(kNan, kNan) == std::numeric_limits<std::uint64_t>::max());
  CHECK(ulp_distance(1.0, kNan) == std::numeric_limits<std::uint64_t>::max());
}

TEST_CASE("norm, epsilon and the derived tolerances", "[support]") {
  CHECK(support::norm(std::vector<float>{3.0F, -4.0F}) == 5.0);
  CHECK(support::epsilon<double>() == 0x1p-52);
  CHECK(support::epsilon<float>() == 0x1p-23);
  CHECK(support::epsilon<bf16>() == 0x1p-7);
  CHECK(support::tolerance_for_dot(3, 2.0, 5.0, 0x1p-23) == Approx(2.0 * 0x1p-23 * 10.0).epsilon(1e-6));
  CHECK(support::typical_tolerance_for_dot(3, 2.0, 5.0, 0x1p-23) == Approx(6.0 * 0x1p-23 * 10.0).epsilon(1e-6));
  // Both hold for a float sum, and neither is idle: the typical one is within a factor of 1000 of the worst error (six
  // deviations, and Cauchy-Schwarz's slack on random vectors).
  const std::size_t k = 2048;
  double worst = 0.0;
  std::vector<float> x(k), y(k);
  for (unsigned trial = 0; trial < 20; ++trial) {
    double exact = 0.0;
    float sum = 0.0F;
    for (unsigned i = 0; i < k; ++i) {
      x[i] = static_cast<float>((i * 7919U + trial * 104729U) % 2001U) / 1000.0F - 1.0F;
      y[i] = static_cast<float>((i * 15485863U + trial * 32452843U) % 2001U) / 1000.0F - 1.0F;
      exact += static_cast<double>(x[i]) * static_cast<double>(y[i]);
      sum += x[i] * y[i];
    }
    const double error = std::abs(static_cast<double>(sum) - exact);
    const double typical = support::typical_tolerance_for_dot(k, support::norm(x), support::norm(y), 0x1p-23);
    CHECK(error <= typical);
    CHECK(typical < support::tolerance_for_dot(k, support::norm(x), support::norm(y), 0x1p-23));
    worst = std::max(worst, error / typical);
  }
  CHECK(worst > 0.001);
}

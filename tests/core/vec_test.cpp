// Row kernels against double references: odd sizes, misaligned pointers, sentinels, every instruction set.

#include "perft/core/vec.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#include "perft/core/rng.hpp"
#include "perft/core/vec/bytes.hpp"

namespace {

using namespace perft;

std::vector<Isa> levels() {
  static bool said = false;
  std::vector<Isa> all = {Isa::portable};
  for (const Isa isa : {Isa::avx2, Isa::avx512}) {
    if (isa <= available_isa()) {
      all.push_back(isa);
    } else if (!said) {
      WARN("not run: the row functions on " << isa_name(isa) << ", which this processor lacks");
    }
  }
  said = true;
  return all;
}

/// n values with a sentinel on either side, `shift` elements off the alignment of a vector.
template <class T>
class Row {
 public:
  Row(std::int64_t n, int shift, std::uint64_t seed, double range = 2)
      : values_(static_cast<std::size_t>(n) + 66, sentinel()), n_(n), shift_(static_cast<std::size_t>(shift) + 1) {
    PhiloxStream random(seed);
    for (std::int64_t i = 0; i < n; ++i) {
      data()[i] = static_cast<T>((random.uniform() * 2 - 1) * range);
    }
  }

  T* data() { return values_.data() + shift_; }

  const T* data() const { return values_.data() + shift_; }

  double operator[](std::int64_t i) const { return static_cast<double>(data()[i]); }

  bool intact() const {
    for (std::size_t i = 0; i < values_.size(); ++i) {
      if ((i < shift_ || i >= shift_ + static_cast<std::size_t>(n_)) && values_[i] != sentinel()) {
        return false;
      }
    }
    return true;
  }

 private:
  static T sentinel() { return static_cast<T>(-12345); }

  std::vector<T> values_;
  std::int64_t n_;
  std::size_t shift_;
};

template <class T>
constexpr double eps = std::same_as<T, float> ? 0x1p-24 : 0x1p-53;

const std::int64_t sizes[] = {0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100, 127, 129, 200, 1000};

/// body(n, shift) for every level, size and a few misalignments.
void sweep(const std::function<void(std::int64_t, int)>& body) {
  for (const Isa isa : levels()) {
    const ScopedIsa scope(isa);
    for (const std::int64_t n : sizes) {
      for (const int shift : {0, 1, 3}) {
        INFO(isa_name(isa) << ", n = " << n << ", shift " << shift);
        body(n, shift);
      }
    }
  }
}

bool near(double got, double want, double tolerance) {
  return std::fabs(got - want) <= tolerance;
}

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

}  // namespace

TEMPLATE_TEST_CASE("elementwise kernels", "[vec]", float, double) {
  using T = TestType;
  sweep([](std::int64_t n, int shift) {
    const Row<T> a(n, shift, 1), b(n, shift / 2, 2);
    Row<T> axpy(n, shift, 3), scaled(n, shift, 4), out_add(n, shift, 5), out_mul(n, 0, 6);
    const Row<T> axpy_before = axpy, scaled_before = scaled;
    const T alpha = T(0.7);
    vec::axpy(alpha, a.data(), axpy.data(), n);
    vec::scale(alpha, scaled.data(), n);
    vec::add(a.data(), b.data(), out_add.data(), n);
    vec::mul(a.data(), b.data(), out_mul.data(), n);
    bool good = true;
    for (std::int64_t i = 0; i < n; ++i) {
      const double alpha_d = static_cast<double>(alpha);
      good = good && near(axpy[i], axpy_before[i] + alpha_d * a[i], 8 * eps<T>);
      good = good && near(scaled[i], alpha_d * scaled_before[i], 4 * eps<T>);
      good = good && out_add[i] == static_cast<double>(static_cast<T>(a[i] + b[i]));
      good = good && out_mul[i] == static_cast<double>(static_cast<T>(a[i] * b[i]));
    }
    CHECK(good);
    CHECK((axpy.intact() && scaled.intact() && out_add.intact() && out_mul.intact()));
    Row<T> in_place = a;
    vec::add(in_place.data(), b.data(), in_place.data(), n);
    CHECK(std::memcmp(in_place.data(), out_add.data(), static_cast<std::size_t>(n) * sizeof(T)) == 0);
  });
}

TEMPLATE_TEST_CASE("reductions", "[vec]", float, double) {
  using T = TestType;
  sweep([](std::int64_t n, int shift) {
    const Row<T> a(n, shift, 1), b(n, 0, 2);
    double dot = 0, squares = 0, dot_size = 0, most = -HUGE_VAL;
    for (std::int64_t i = 0; i < n; ++i) {
      dot += a[i] * b[i];
      dot_size += std::fabs(a[i] * b[i]);
      squares += a[i] * a[i];
      most = std::max(most, a[i]);
    }
    const double steps = static_cast<double>(n + 1) * eps<T>;
    CHECK(near(static_cast<double>(vec::dot(a.data(), b.data(), n)), dot, steps * dot_size));
    CHECK(near(static_cast<double>(vec::sum_squares(a.data(), n)), squares, steps * squares));
    CHECK(static_cast<double>(vec::max(a.data(), n)) == most);
    if (n > 0) {
      for (const std::int64_t at : {std::int64_t{0}, n / 2, n - 1}) {
        Row<T> with_nan = a;
        with_nan.data()[at] = std::numeric_limits<T>::quiet_NaN();
        CHECK(std::isnan(vec::max(with_nan.data(), n)));
      }
    }
  });
}

TEMPLATE_TEST_CASE("several rows at once have the bits of one at a time", "[vec]", float, double) {
  using T = TestType;
  sweep([](std::int64_t n, int shift) {
    for (const std::int64_t count : {0, 1, 4, 7, 8}) {
      const std::int64_t ld = n + 5;
      const Row<T> x(n, shift, 1), rows(count * ld, shift, 2), coeff(count, 0, 3);
      Row<T> dots(count, 0, 4), y(n, shift, 5), updated = rows;
      Row<T> y_want = y, updated_want = rows;
      vec::multi_dot(x.data(), rows.data(), ld, count, n, dots.data());
      vec::multi_axpy(coeff.data(), rows.data(), ld, count, n, y.data());
      vec::rank1_update(coeff.data(), x.data(), updated.data(), ld, count, n);
      bool good = true;
      for (std::int64_t q = 0; q < count; ++q) {
        good = good && dots.data()[q] == vec::dot(x.data(), rows.data() + q * ld, n);
        vec::axpy(coeff.data()[q], rows.data() + q * ld, y_want.data(), n);
        vec::axpy(coeff.data()[q], x.data(), updated_want.data() + q * ld, n);
      }
      CHECK(good);
      CHECK(std::memcmp(y.data(), y_want.data(), static_cast<std::size_t>(n) * sizeof(T)) == 0);
      CHECK(std::memcmp(updated.data(), updated_want.data(), static_cast<std::size_t>(count * ld) * sizeof(T)) == 0);
      CHECK((dots.intact() && y.intact() && updated.intact()));
    }
  });
}

TEMPLATE_TEST_CASE("a sum of outer products has the bits of one product at a time", "[vec]", float, double) {
  using T = TestType;
  sweep([](std::int64_t n, int shift) {
    for (const std::int64_t count : {0, 1, 4, 7}) {
      for (const std::int64_t entries : {0, 1, 5}) {
        const std::int64_t ld = n + 5;
        const Row<T> x(entries * ld, shift, 1), coeff(entries * 9, 0, 2), before(count * ld, shift, 3);
        Row<T> got = before, want = before;
        std::vector<const T*> x_rows, coeff_rows;
        std::vector<T> sums(static_cast<std::size_t>(count * ld), T{0});
        for (std::int64_t t = 0; t < entries; ++t) {
          x_rows.push_back(x.data() + t * ld);
          coeff_rows.push_back(coeff.data() + t * 9);
          vec::rank1_update(coeff_rows.back(), x_rows.back(), sums.data(), ld, count, n);
        }
        for (std::int64_t q = 0; q < count; ++q) {
          vec::axpy(T{1}, sums.data() + q * ld, want.data() + q * ld, n);
        }
        vec::sum_outer(coeff_rows.data(), x_rows.data(), entries, got.data(), ld, count, n);
        CHECK(std::memcmp(got.data(), want.data(), static_cast<std::size_t>(count * ld) * sizeof(T)) == 0);
        CHECK(got.intact());
      }
    }
  });
}

TEMPLATE_TEST_CASE("exponentials and SwiGLU", "[vec]", float, double) {
  using T = TestType;
  sweep([](std::int64_t n, int shift) {
    const Row<T> x(n, shift, 1, 20), g(n, shift, 2, 8), u(n, 0, 3), da(n, 1, 4);
    Row<T> out(n, shift, 5), a(n, shift, 6), dg(n, shift, 7), du(n, 0, 8);
    const T shift_by = T(3.5);
    const T total = vec::exp_sum(x.data(), shift_by, out.data(), n);
    vec::silu_mul(g.data(), u.data(), a.data(), n);
    vec::silu_mul_backward(g.data(), u.data(), da.data(), dg.data(), du.data(), n);
    double want_total = 0;
    bool good = true;
    for (std::int64_t i = 0; i < n; ++i) {
      const double e = std::exp(static_cast<double>(static_cast<T>(x.data()[i] - shift_by)));
      good = good && near(out[i], e, 4 * eps<T> * e);
      want_total += out[i];
      const double s = sigmoid(g[i]);
      good = good && near(a[i], g[i] * s * u[i], 16 * eps<T> * std::fabs(g[i] * u[i]));
      good = good && near(dg[i], da[i] * u[i] * s * (1 + g[i] * (1 - s)), 32 * eps<T> * (1 + std::fabs(g[i])) * 4);
      good = good && near(du[i], da[i] * g[i] * s, 16 * eps<T> * std::fabs(da[i] * g[i]));
    }
    CHECK(good);
    CHECK(near(static_cast<double>(total), want_total, static_cast<double>(n + 1) * eps<T> * want_total));
    CHECK((out.intact() && a.intact() && dg.intact() && du.intact()));
    Row<T> over_g = g, over_u = u;
    vec::silu_mul_backward(over_g.data(), over_u.data(), da.data(), over_g.data(), over_u.data(), n);
    CHECK(std::memcmp(over_g.data(), dg.data(), static_cast<std::size_t>(n) * sizeof(T)) == 0);
    CHECK(std::memcmp(over_u.data(), du.data(), static_cast<std::size_t>(n) * sizeof(T)) == 0);
  });
}

TEST_CASE("float exp is within 2 ulp everywhere, and right at the ends", "[vec]") {
  constexpr float inf = std::numeric_limits<float>::infinity();
  for (const Isa isa : levels()) {
    const ScopedIsa scope(isa);
    std::vector<float> x, out;
    for (double v = -87.33; v < 88.72; v += 0.000317) {
      x.push_back(static_cast<float>(v));
    }
    out.resize(x.size());
    vec::exp_sum(x.data(), 0.0F, out.data(), static_cast<std::int64_t>(x.size()));
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double want = std::exp(static_cast<double>(x[i]));
      const auto rounded = static_cast<float>(want);
      const double ulp = static_cast<double>(std::nextafter(rounded, inf)) - static_cast<double>(rounded);
      worst = std::max(worst, std::fabs(static_cast<double>(out[i]) - want) / ulp);
    }
    INFO(isa_name(isa) << ", worst " << worst << " ulp");
    CHECK(worst <= 2);
    const float ends[] = {0, -0.0F, -88, -1e4F, -inf, 89, inf, std::numeric_limits<float>::quiet_NaN()};
    const float want[] = {1, 1, 0, 0, 0, inf, inf, 0};
    for (std::size_t i = 0; i < std::size(ends); ++i) {
      std::vector<float> row(40, ends[i]);  // vectors and the scalar remainder
      vec::exp_sum(row.data(), 0.0F, row.data(), 40);
      for (const float value : row) {
        CHECK((std::isnan(ends[i]) ? std::isnan(value) : value == want[i]));
      }
    }
  }
}

TEST_CASE("dropout rows equal the scalar Philox", "[vec]") {
  sweep([](std::int64_t n, int shift) {
    const PhiloxKey key = {0x12345678U, 0x9abcdef0U};
    const std::array<std::uint32_t, 3> counter = {77, 5, 0xffffffffU};
    for (const double p : {0.0, 0.1, 0.75}) {
      Row<float> mask(n, shift, 1);
      Row<double> mask_double(n, shift, 1);
      vec::philox_dropout_row(key, counter, p, n, mask.data());
      vec::philox_dropout_row(key, counter, p, n, mask_double.data());
      bool good = true;
      for (std::int64_t c = 0; c < n; ++c) {
        const auto words = philox({77, 5, 0xffffffffU, static_cast<std::uint32_t>(c / 4)}, key);
        const bool dropped = words[static_cast<std::size_t>(c % 4)] < std::floor(p * 0x1p32);
        good = good && mask.data()[c] == (dropped ? 0.0F : static_cast<float>(1 / (1 - p)));
        good = good && mask_double.data()[c] == (dropped ? 0.0 : 1 / (1 - p));
      }
      CHECK(good);
      CHECK((mask.intact() && mask_double.intact()));
      for (const std::int64_t first : {4, 60}) {
        if (first <= n) {
          Row<float> part(n - first, shift, 2);
          vec::philox_dropout_row(key, counter, p, n - first, part.data(), first);
          CHECK(std::memcmp(part.data(), mask.data() + first, static_cast<std::size_t>(n - first) * sizeof(float)) ==
                0);
          CHECK(part.intact());
        }
      }
    }
  });
}

TEST_CASE("conversions keep every bit pattern", "[vec]") {
  for (const Isa isa : levels()) {
    const ScopedIsa scope(isa);
    std::vector<bf16> narrow(65536), back(65536);
    std::vector<f16> halves(65536);
    for (std::uint32_t i = 0; i < 65536; ++i) {
      narrow[i] = bf16::from_bits(static_cast<std::uint16_t>(i));
      halves[i].bits = static_cast<std::uint16_t>(i);
    }
    std::vector<float> wide(65536), from_half(65536);
    vec::convert(narrow.data(), wide.data(), 65536);
    vec::convert(halves.data(), from_half.data(), 65536);
    vec::convert(wide.data(), back.data(), 65536);
    bool good = true;
    for (std::uint32_t i = 0; i < 65536; ++i) {
      good = good && std::bit_cast<std::uint32_t>(wide[i]) == i << 16;
      good = good && back[i].bits == bf16(wide[i]).bits;
      const double sign = (i & 0x8000U) != 0 ? -1 : 1;
      const int exponent = static_cast<int>((i >> 10) & 31U);
      const auto fraction = static_cast<double>(i & 1023U);
      if (exponent < 31) {
        const double value =
            sign * (exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25));
        good = good && static_cast<double>(from_half[i]) == value && std::signbit(from_half[i]) == (sign < 0);
      } else {
        good = good && (fraction != 0 ? std::isnan(from_half[i]) : std::isinf(from_half[i]));
      }
    }
    CHECK(good);
  }
}

TEST_CASE("rounding to bf16 is to nearest even, for any length and alignment", "[vec]") {
  sweep([](std::int64_t n, int shift) {
    Row<float> x(n, shift, 1);
    if (n > 2) {
      x.data()[0] = std::bit_cast<float>(0x3f808000U);      // a tie, to the even side
      x.data()[1] = std::bit_cast<float>(0x7f800001U);      // a NaN that truncation would make infinite
      x.data()[n - 1] = std::bit_cast<float>(0x00000001U);  // subnormal
    }
    std::vector<bf16> out(static_cast<std::size_t>(n) + 1, bf16(7.0F));
    vec::convert(x.data(), out.data(), n);
    bool good = out.back().bits == bf16(7.0F).bits;
    for (std::int64_t i = 0; i < n; ++i) {
      good = good && out[static_cast<std::size_t>(i)].bits == bf16(x.data()[i]).bits;
    }
    const Row<float> before = x;
    vec::round_to_bf16(x.data(), n);
    for (std::int64_t i = 0; i < n; ++i) {
      const float want = bf16(before.data()[i]);
      good = good && std::memcmp(&want, x.data() + i, sizeof want) == 0;
    }
    CHECK(good);
    CHECK(x.intact());
    // From bytes at an odd address, as in a mapped checkpoint.
    std::vector<std::byte> bytes(static_cast<std::size_t>(n) * 4 + 1);
    if (n > 0) {
      std::memcpy(bytes.data() + 1, before.data(), static_cast<std::size_t>(n) * 4);
    }
    std::vector<bf16> unaligned(static_cast<std::size_t>(n) + 1);
    vec::convert_bytes(bytes.data() + 1, DType::f32, unaligned.data(), n);
    CHECK(std::memcmp(unaligned.data(), out.data(), static_cast<std::size_t>(n) * 2) == 0);
  });
  CHECK_THROWS_AS(vec::convert_bytes(nullptr, DType::i8, static_cast<float*>(nullptr), 0), UnsupportedError);
}

#include "perft/core/rng.hpp"

#include <array>             // blocks
#include <catch2/catch.hpp>  // test cases
#include <cmath>             // bounds in standard deviations
#include <cstdint>           // words
#include <set>               // distinct streams
#include <vector>            // samples

using perft::philox;
using perft::philox_uniform;
using perft::PhiloxKey;
using perft::PhiloxStream;

namespace {

using Block = std::array<std::uint32_t, 4>;

constexpr int kSamples = 200000;

/// Each mean below is compared with its expectation at 5 standard deviations: one false alarm in 1.7 million seeds, and
/// the seed is fixed.
constexpr double kSigmas = 5.0;

}  // namespace

TEST_CASE("philox gives the known answers") {
  // Random123's kat_vectors, the lines "philox4x32 10".
  CHECK(philox({0, 0, 0, 0}, {0, 0}) == Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  constexpr std::uint32_t ones = 0xffffffff;
  CHECK(philox({ones, ones, ones, ones}, {ones, ones}) == Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("philox is a constant expression") {
  static_assert(philox({0, 0, 0, 0}, {0, 0})[0] == 0x6627e8d5);
  CHECK(philox({0, 0, 0, 0}, {0, 0})[3] == 0x9b00dbd8);
}

TEST_CASE("every word of counter and key changes the block") {
  std::set<Block> blocks{philox({1, 1, 1, 1}, {1, 1})};
  for (std::size_t word = 0; word < 4; ++word) {
    Block counter{1, 1, 1, 1};
    counter.at(word) ^= 0x80000000;
    blocks.insert(philox(counter, {1, 1}));
  }
  blocks.insert(philox({1, 1, 1, 1}, {2, 1}));
  blocks.insert(philox({1, 1, 1, 1}, {1, 2}));
  CHECK(blocks.size() == 7);
}

TEST_CASE("uniforms never reach 0 or 1") {
  CHECK(philox_uniform(0) == 0x1.0p-33);
  CHECK(philox_uniform(0xffffffff) == 1.0 - 0x1.0p-33);
  CHECK(philox_uniform(0x80000000) == 0.5 + 0x1.0p-33);
}

TEST_CASE("a stream is the blocks of its counter in order") {
  PhiloxStream stream(0x0123456789abcdefULL, 0xfedcba9876543210ULL);
  for (std::uint32_t block = 0; block < 3; ++block) {
    const Block expected = philox({block, 0, 0x76543210, 0xfedcba98}, {0x89abcdef, 0x01234567});
    for (const std::uint32_t word : expected) {
      CHECK(stream.next() == word);
    }
  }
}

TEST_CASE("a stream repeats from its seed, and differs by seed and by stream") {
  PhiloxStream a(42, 1);
  PhiloxStream same(42, 1);
  PhiloxStream other_seed(43, 1);
  PhiloxStream other_stream(42, 2);
  int equal_seed = 0;
  int equal_stream = 0;
  for (int i = 0; i < 1000; ++i) {
    const std::uint32_t word = a.next();
    REQUIRE(same.next() == word);
    equal_seed += other_seed.next() == word ? 1 : 0;
    equal_stream += other_stream.next() == word ? 1 : 0;
  }
  CHECK(equal_seed == 0);
  CHECK(equal_stream == 0);
}

TEST_CASE("uniforms have the mean and variance of the uniform distribution") {
  PhiloxStream stream(7);
  double sum = 0.0;
  double squares = 0.0;
  for (int i = 0; i < kSamples; ++i) {
    const double u = stream.uniform();
    REQUIRE((u > 0.0 && u < 1.0));
    sum += u;
    squares += (u - 0.5) * (u - 0.5);
  }
  CHECK(std::abs(sum / kSamples - 0.5) < kSigmas * std::sqrt(1.0 / 12.0 / kSamples));
  // Var((u - 1/2)^2) = 1/80 - 1/144 = 1/180.
  CHECK(std::abs(squares / kSamples - 1.0 / 12.0) < kSigmas * std::sqrt(1.0 / 180.0 / kSamples));
}

TEST_CASE("normals have the moments of the standard normal and uncorrelated neighbours") {
  PhiloxStream stream(11);
  double sum = 0.0;
  double squares = 0.0;
  double fourth = 0.0;
  double neighbours = 0.0;
  double last = stream.normal();
  for (int i = 0; i < kSamples; ++i) {
    const double z = stream.normal();
    sum += z;
    squares += z * z;
    fourth += z * z * z * z;
    neighbours += z * last;
    last = z;
  }
  // Variances of z, z², z⁴, z·z': 1, 2, 105 - 9, 1.
  CHECK(std::abs(sum / kSamples) < kSigmas * std::sqrt(1.0 / kSamples));
  CHECK(std::abs(squares / kSamples - 1.0) < kSigmas * std::sqrt(2.0 / kSamples));
  CHECK(std::abs(fourth / kSamples - 3.0) < kSigmas * std::sqrt(96.0 / kSamples));
  CHECK(std::abs(neighbours / kSamples) < kSigmas * std::sqrt(1.0 / kSamples));
}

TEST_CASE("a pair of normals comes from one pair of uniforms") {
  PhiloxStream normals(5);
  PhiloxStream uniforms(5);
  for (int pair = 0; pair < 10; ++pair) {
    const double u = uniforms.uniform();
    uniforms.uniform();
    const double a = normals.normal();
    const double b = normals.normal();
    CHECK(a * a + b * b == Approx(-2.0 * std::log(u)).epsilon(1e-14));
  }
}

TEST_CASE("below stays in range and reaches every value equally often") {
  PhiloxStream stream(3);
  for (const std::uint32_t bound : {1U, 2U, 3U, 7U, 10U}) {
    std::vector<int> hits(bound, 0);
    for (int i = 0; i < kSamples; ++i) {
      ++hits.at(stream.below(bound));
    }
    const double p = 1.0 / bound;
    for (const int h : hits) {
      CHECK(std::abs(h - kSamples * p) <= kSigmas * std::sqrt(kSamples * p * (1.0 - p)));
    }
  }
}

TEST_CASE("below has no modulo bias where 2^32 mod bound is large") {
  // With word % bound the lower half of [0, 3·2^30) would be twice as likely as the rest: 1/3 + 1/3 instead of 1/2.
  constexpr std::uint32_t bound = 0xc0000000;
  PhiloxStream stream(9);
  int low_third = 0;
  for (int i = 0; i < kSamples; ++i) {
    const std::uint32_t value = stream.below(bound);
    REQUIRE(value < bound);
    low_third += value < bound / 3 ? 1 : 0;
  }
  CHECK(std::abs(low_third - kSamples / 3.0) < kSigmas * std::sqrt(kSamples * 2.0 / 9.0));
}

#include "perft/peft/bank.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <string>
#include <vector>

#include "ops/support/harness.hpp"

using perft::AdapterSpec;
using perft::Method;

namespace {

struct Moments {
  double mean = 0, variance = 0, skew = 0, kurtosis = 0, largest = 0;
};

template <class P>
Moments moments(const perft::Parameter<P>& parameter) {
  const auto v = harness::values(parameter.value());
  Moments m;
  const auto n = static_cast<double>(v.size());
  for (const double x : v) m.mean += x / n;
  for (const double x : v) {
    const double d = x - m.mean;
    m.variance += d * d / n;
    m.skew += d * d * d / n;
    m.kurtosis += d * d * d * d / n;
    m.largest = std::max(m.largest, std::abs(x));
  }
  m.skew /= std::pow(m.variance, 1.5);
  m.kurtosis /= m.variance * m.variance;
  return m;
}

AdapterSpec spec_of(Method method, perft::DeltaForm delta = perft::DeltaForm::kLora) {
  AdapterSpec spec;
  spec.method = method;
  spec.delta = delta;
  return spec;
}

}  // namespace

// 64 · 1024 values: the standard error of a mean is sigma / 256, of a variance sigma² √2 / 256, of a normal's kurtosis
// √24 / 256. The bounds are 5 of them.
TEST_CASE("PERFT starts with A of variance 2/r and B of standard deviation 1e-6, both normal") {
  for (const std::int64_t rank : {4, 64}) {
    const std::int64_t width = 65536 / rank;
    const auto expert = perft::make_low_rank_expert<float>("e.", spec_of(Method::kPerftR), rank, width, width, 7);
    const double variance = 2.0 / static_cast<double>(rank);
    const Moments a = moments(expert->a);
    CHECK(std::abs(a.mean) < 5 * std::sqrt(variance) / 256);
    CHECK(std::abs(a.variance / variance - 1) < 5 * std::sqrt(2.0) / 256);
    CHECK(std::abs(a.skew) < 5 * std::sqrt(6.0) / 256);
    CHECK(std::abs(a.kurtosis - 3) < 5 * std::sqrt(24.0) / 256);
    const Moments b = moments(expert->b);
    CHECK(std::abs(std::sqrt(b.variance) / 1e-6 - 1) < 5 / std::sqrt(2.0) / 256);
    CHECK(std::abs(b.kurtosis - 3) < 5 * std::sqrt(24.0) / 256);
  }
}

TEST_CASE("LoRA starts as PEFT does: A uniform within 1/sqrt(in), B zero") {
  const auto expert = perft::make_low_rank_expert<float>("e.", spec_of(Method::kLora), 64, 1024, 32, 7);
  const Moments a = moments(expert->a);
  const double bound = 1.0 / 32;  // √(6 / (1 + 5) / 1024)
  CHECK(a.largest <= bound);
  CHECK(a.largest > 0.999 * bound);
  CHECK(std::abs(a.mean) < 5 * bound / std::sqrt(3.0) / 256);
  CHECK(std::abs(a.variance / (bound * bound / 3) - 1) < 5 * std::sqrt(0.8) / 256);
  CHECK(std::abs(a.kurtosis - 1.8) < 0.05);
  for (const float x : expert->b.value().span()) CHECK(x == 0);
}

TEST_CASE("an expert has the names, shapes and flags that files and optimiser expect") {
  const auto lora = perft::make_low_rank_expert<double>("m.perft.experts.3.", spec_of(Method::kPerftS), 2, 5, 7, 1);
  CHECK(lora->a.name() == "m.perft.experts.3.lora_A.weight");
  CHECK(lora->b.name() == "m.perft.experts.3.lora_B.weight");
  CHECK(lora->a.value().shape() == perft::Shape{2, 5});
  CHECK(lora->b.value().shape() == perft::Shape{2, 7});
  CHECK_FALSE(lora->a.stored_transposed());
  CHECK(lora->b.stored_transposed());
  CHECK(lora->a.trainable());
  CHECK(lora->b.trainable());
  const auto parallel =
      perft::make_low_rank_expert<double>("m.", spec_of(Method::kPerftD, perft::DeltaForm::kParallel), 2, 5, 5, 1);
  CHECK(parallel->a.name() == "m.w1.weight");
  CHECK(parallel->b.name() == "m.w2.weight");
}

namespace {

/// Where two lists of one length first differ, or that length. Catch would take minutes to print 49 thousand numbers.
std::int64_t first_difference(const harness::Values& a, const harness::Values& b) {
  REQUIRE(a.size() == b.size());
  return std::mismatch(a.begin(), a.end(), b.begin()).first - a.begin();
}

}  // namespace

TEST_CASE("initial values are those of one sequential stream, for any number of threads; zeros without a seed") {
  const std::int64_t n = 3 * (1 << 14) + 7;  // several chunks, the last not a whole block
  harness::Values normal, uniform;
  perft::PhiloxStream normals = perft::detail::tensor_stream("t", 9), uniforms = perft::detail::tensor_stream("t", 9);
  for (std::int64_t i = 0; i < n; ++i) {
    normal.push_back(0.5 * normals.normal());
    uniform.push_back(0.5 * (2 * uniforms.uniform() - 1));
  }
  const int threads = perft::ThreadPool::global().threads();
  for (const int count : {1, 2, 3}) {
    perft::ThreadPool::global().set_threads(count);
    perft::Parameter<double> p("t", perft::Tensor<double>::zeros({n}));
    perft::fill_normal(p, 0.5, 9);
    CHECK(first_difference(harness::values(p.value()), normal) == n);
    perft::fill_uniform(p, 0.5, 9);
    CHECK(first_difference(harness::values(p.value()), uniform) == n);
  }
  perft::ThreadPool::global().set_threads(threads);
  const auto expert = perft::make_low_rank_expert<float>("e.", spec_of(Method::kPerftR), 2, 5, 5, std::nullopt);
  CHECK(harness::values(expert->a.value()) == harness::Values(10));
  CHECK(harness::values(expert->b.value()) == harness::Values(10));
}

TEST_CASE("initial values are a function of seed and name alone") {
  const auto values = [](const std::string& name, std::uint64_t seed) {
    perft::Parameter<float> p(name, perft::Tensor<float>::zeros({40}));
    perft::fill_normal(p, 1.0, seed);
    return harness::values(p.value());
  };
  CHECK(values("a", 1) == values("a", 1));
  CHECK(values("a", 1) != values("b", 1));
  CHECK(values("a", 1) != values("a", 2));
  CHECK(values("a", std::uint64_t{1} << 40) != values("a", 0));
  // No parameter's stream is another's, shifted.
  const auto a = values("layers.0.a", 1), b = values("layers.1.a", 1);
  for (std::size_t shift = 0; shift < 8; ++shift) {
    CHECK(std::find(b.begin(), b.end(), a[shift]) == b.end());
  }
  perft::Parameter<double> wide("a", perft::Tensor<double>::zeros({40}));
  perft::fill_normal(wide, 1.0, 1);
  const auto narrow = values("a", 1);  // the same draws in every type
  for (std::size_t i = 0; i < 40; ++i) {
    CHECK(static_cast<double>(static_cast<float>(wide.value().span()[i])) == narrow[i]);
  }
}

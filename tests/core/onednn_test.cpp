// oneDNN beside perft's own kernels. Sizes, layouts, tails and epilogues are gemm_test's, which runs a second time with
// PERFT_ONEDNN_USE=always; here is what only the choice between the two can get wrong.

#include "perft/core/gemm/onednn.hpp"

#include <catch2/catch.hpp>

#include "gemm_cases.hpp"

namespace {

using namespace gemm_cases;
using gemm::OneDnnUse;

/// x [m, k] · Wᵀ, W [n, k], or · W, W [k, n].
gemm::Problem<bf16> problem_of(const Matrix& a, const Matrix& b) {
  gemm::Problem<bf16> p;
  p.m = a.rows;
  p.n = b.cols;
  p.k = a.cols;
  p.a = a.operand;
  p.b = b.operand;
  return p;
}

bool has_bf16() {
  return available_isa() >= Isa::avx512_bf16;
}

}  // namespace

TEST_CASE("oneDNN takes what it can read, and only if it is asked to or is faster", "[gemm]") {
  if (!has_bf16()) {
    WARN("not run: what oneDNN multiplies, as this processor has no bf16 products");
  }
  const Matrix a = make_matrix(300, 40, DType::bf16, false, 0, 0, 1);
  const Matrix b = make_matrix(40, 30, DType::bf16, true, 0, 0, 2);
  const Matrix odd = make_matrix(40, 30, DType::bf16, true, 0, 1, 2);
  const Matrix wide = make_matrix(40, 30, DType::f32, true, 0, 0, 2);
  gemm::Problem<bf16> p = problem_of(a, b);
  {
    const gemm::ScopedOneDnn never(OneDnnUse::never);
    CHECK_FALSE(gemm::detail::onednn_takes(p));
  }
  {
    const gemm::ScopedOneDnn measured(OneDnnUse::measured);
    const std::int64_t from = gemm::detail::onednn_faster_from(active_isa());
    CHECK(gemm::detail::onednn_takes(p) == (has_bf16() && p.m >= from));
    p.m = 127;  // below every threshold
    CHECK_FALSE(gemm::detail::onednn_takes(p));
    p.m = 300;
  }
  const gemm::ScopedOneDnn always(OneDnnUse::always);
  CHECK(gemm::detail::onednn_takes(p) == has_bf16());
  {
    const ScopedIsa below(Isa::avx512);  // no bf16 products there
    CHECK_FALSE(gemm::detail::onednn_takes(p));
  }
  p.b2 = b.operand;
  CHECK(gemm::detail::onednn_takes(p) == has_bf16());
  p.b2 = odd.operand;  // an odd address, as in a mapped file
  CHECK_FALSE(gemm::detail::onednn_takes(p));
  p.b2.reset();
  p.tail = gemm::Tail{1, p.a, p.b};
  CHECK_FALSE(gemm::detail::onednn_takes(p));
  p.tail.reset();
  const std::vector<std::int32_t> index(40, 0);
  p.b.rows = index.data();
  CHECK_FALSE(gemm::detail::onednn_takes(p));
  p.b = wide.operand;
  CHECK_FALSE(gemm::detail::onednn_takes(p));
  p.b = b.operand;
  p.b.col_stride = 2 * p.b.col_stride;
  p.b.row_stride = 2;
  CHECK_FALSE(gemm::detail::onednn_takes(p));
}

TEST_CASE("one job may hold products for both, any number of rows, for any number of threads", "[gemm]") {
  const gemm::ScopedOneDnn always(OneDnnUse::always);
  std::vector<Matrix> lefts;
  std::vector<Matrix> rights;
  for (const std::int64_t m : {1, 31, 32, 33, 255, 256, 257, 600}) {
    for (const bool readable : {true, false}) {
      lefts.push_back(make_matrix(m, 70, readable ? DType::bf16 : DType::f32, false, 3, 0, 5));
      rights.push_back(make_matrix(70, 290, DType::bf16, m % 2 == 0, 0, readable ? 0 : 1, 6));
    }
  }
  std::vector<std::vector<float>> before;
  for (const int threads : {1, 2, 3}) {
    CAPTURE(threads);
    ThreadPool::global().set_threads(threads);
    std::vector<std::vector<float>> results;
    std::vector<gemm::Problem<bf16>> problems;
    for (std::size_t i = 0; i < lefts.size(); ++i) {
      results.emplace_back(static_cast<std::size_t>(lefts[i].rows * 290 + 1), 7.0F);
      gemm::Problem<bf16> p = problem_of(lefts[i], rights[i]);
      p.c = {results.back().data(), DType::f32, 290, 1};
      problems.push_back(p);
    }
    gemm::run<bf16>(std::span<const gemm::Problem<bf16>>(problems));
    for (std::size_t i = 0; i < lefts.size(); ++i) {
      CAPTURE(lefts[i].rows, i % 2);
      CHECK(results[i].back() == 7.0F);
      results[i].pop_back();
      CHECK(worst_error<bf16>(lefts[i], rights[i], results[i]) <= 1);
    }
    CHECK((threads == 1 || results == before));
    before = results;
  }
  ThreadPool::global().set_threads(ThreadPool::default_threads());
}

TEST_CASE("the caller's OpenMP threads are as they were", "[gemm]") {
  const auto threads = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "omp_get_max_threads"));
  if (threads == nullptr) {
    WARN("this oneDNN has no OpenMP runtime");
    return;
  }
  const int before = threads();
  {
    const gemm::detail::OneDnnSingleThread single;
    CHECK(threads() == 1);
  }
  CHECK(threads() == before);
}

TEST_CASE("PERFT_ONEDNN_USE is checked", "[gemm]") {
  CHECK(gemm::parse_onednn_use("measured") == OneDnnUse::measured);
  CHECK(gemm::parse_onednn_use("never") == OneDnnUse::never);
  CHECK(gemm::parse_onednn_use("always") == OneDnnUse::always);
  CHECK_THROWS_WITH(gemm::parse_onednn_use("yes"), "PERFT_ONEDNN_USE is \"yes\", expected measured, never or always");
}

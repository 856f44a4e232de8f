// The bits of a result: the same alone and in any batch, in any layout, gather, job and for any number of threads.

#include <catch2/catch.hpp>

#include "gemm_cases.hpp"

namespace {

using namespace gemm_cases;

/// Columns [j0, j1) of `b` as an operand of its own.
Matrix columns_of(const Matrix& b, std::int64_t j0, std::int64_t j1) {
  Matrix part;
  part.rows = b.rows;
  part.cols = j1 - j0;
  part.operand = b.operand;
  part.operand.data = static_cast<const std::byte*>(b.operand.data) +
                      j0 * b.operand.col_stride * static_cast<std::int64_t>(dtype_size(b.operand.dtype));
  return part;
}

Matrix rows_of(const Matrix& a, std::int64_t i0, std::int64_t i1) {
  Matrix part;
  part.rows = i1 - i0;
  part.cols = a.cols;
  part.operand = a.operand;
  part.operand.data = static_cast<const std::byte*>(a.operand.data) +
                      i0 * a.operand.row_stride * static_cast<std::int64_t>(dtype_size(a.operand.dtype));
  return part;
}

template <class T>
bool same_bits(const std::vector<T>& x, const std::vector<T>& y) {
  return x.size() == y.size() && (x.empty() || std::memcmp(x.data(), y.data(), x.size() * sizeof(T)) == 0);
}

class Threads {
 public:
  explicit Threads(int n) : before_(ThreadPool::global().threads()) { ThreadPool::global().set_threads(n); }

  ~Threads() { ThreadPool::global().set_threads(before_); }

 private:
  int before_;
};

}  // namespace

TEMPLATE_TEST_CASE("a row alone has the bits it has in any batch", "[gemm]", bf16, float, double) {
  const OwnKernels own;
  using A = gemm::Acc<TestType>;
  for (const Isa isa : levels()) {
    const ScopedIsa scope(isa);
    for (const bool weights_by_row : {true, false}) {
      for (const std::int64_t k : {77, 1056, 2240}) {
        const Matrix x = make_matrix(300, k, dtype_of<TestType>, false, 0, 0, 1);
        const Matrix w = make_matrix(k, 70, dtype_of<TestType>, weights_by_row, 0, 0, 2);
        const std::vector<A> all = multiply<TestType>(x, w);
        for (const auto& [i0, i1] : {std::pair{0, 1}, {3, 4}, {299, 300}, {5, 13}, {16, 49}, {100, 230}}) {
          const std::vector<A> part = multiply<TestType>(rows_of(x, i0, i1), w);
          INFO("rows " << i0 << ".." << i1 << ", k " << k << ", " << isa_name(isa));
          CHECK(same_bits(part, std::vector<A>(all.begin() + i0 * 70, all.begin() + i1 * 70)));
        }
        for (const auto& [j0, j1] : {std::pair{0, 1}, {69, 70}, {7, 24}}) {
          const std::vector<A> part = multiply<TestType>(x, columns_of(w, j0, j1));
          bool same = true;
          for (std::int64_t i = 0; i < 300; ++i) {
            same = same && std::memcmp(&part[static_cast<std::size_t>(i * (j1 - j0))],
                                       &all[static_cast<std::size_t>(i * 70 + j0)],
                                       static_cast<std::size_t>(j1 - j0) * sizeof(A)) == 0;
          }
          INFO("columns " << j0 << ".." << j1 << ", k " << k << ", " << isa_name(isa));
          CHECK(same);
        }
      }
    }
  }
}

TEMPLATE_TEST_CASE("layout, gather and alignment do not change bits", "[gemm]", bf16, float, double) {
  const OwnKernels own;
  using A = gemm::Acc<TestType>;
  for (const Isa isa : levels()) {
    const ScopedIsa scope(isa);
    const Matrix x = make_matrix(40, 2208, dtype_of<TestType>, false, 0, 0, 3);
    const Matrix w = make_matrix(2208, 96, dtype_of<TestType>, true, 0, 0, 4);
    const std::vector<A> plain = multiply<TestType>(x, w);
    // The generators fill in the same order whatever the layout, so the values are equal.
    CHECK(same_bits(plain, multiply<TestType>(make_matrix(40, 2208, dtype_of<TestType>, true, 3, 1, 3), w)));
    CHECK(same_bits(plain, multiply<TestType>(x, make_matrix(2208, 96, dtype_of<TestType>, false, 5, 1, 4))));
    std::vector<std::int32_t> order(40);
    for (std::size_t i = 0; i < 40; ++i) {
      order[i] = static_cast<std::int32_t>((i * 7) % 40);
    }
    Matrix gathered = x;
    gathered.operand.data = x.operand.data;
    gathered.operand.rows = order.data();
    const std::vector<A> shuffled = multiply<TestType>(gathered, w);
    for (std::size_t i = 0; i < 40; ++i) {
      CHECK(std::memcmp(&shuffled[i * 96], &plain[static_cast<std::size_t>(order[i]) * 96], 96 * sizeof(A)) == 0);
    }
  }
}

TEMPLATE_TEST_CASE("threads and other problems do not change bits", "[gemm]", bf16, float, double) {
  const OwnKernels own;
  using A = gemm::Acc<TestType>;
  for (const Isa isa : levels()) {
    const ScopedIsa scope(isa);
    std::vector<Matrix> xs, ws;
    std::vector<std::vector<A>> alone;
    const std::int64_t sizes[] = {1, 0, 8, 33, 270, 5};
    for (std::size_t e = 0; e < std::size(sizes); ++e) {
      xs.push_back(make_matrix(sizes[e], 200, DType::f32, false, 0, 0, 20 + e));
      ws.push_back(make_matrix(200, 150, dtype_of<TestType>, e % 2 == 0, 0, 0, 40 + e));
      const Threads one(1);
      alone.push_back(multiply<TestType>(xs.back(), ws.back()));
    }
    for (const int threads : {1, 2, 5}) {
      const Threads scope_threads(threads);
      std::vector<std::vector<A>> together;
      std::vector<gemm::Problem<TestType>> problems;
      for (std::size_t e = 0; e < std::size(sizes); ++e) {
        together.emplace_back(static_cast<std::size_t>(sizes[e] * 150));
        gemm::Problem<TestType> p;
        p.m = sizes[e];
        p.n = 150;
        p.k = 200;
        p.a = xs[e].operand;
        p.b = ws[e].operand;
        p.c = {together.back().data(), dtype_of<A>, 150, 1};
        problems.push_back(p);
      }
      gemm::run<TestType>(std::span<const gemm::Problem<TestType>>(problems));
      for (std::size_t e = 0; e < std::size(sizes); ++e) {
        INFO("problem " << e << ", " << threads << " threads, " << isa_name(isa));
        CHECK(same_bits(together[e], alone[e]));
      }
    }
  }
}

TEST_CASE("float results are the same on AVX2 and AVX-512", "[gemm]") {
  const OwnKernels own;
  if (available_isa() < Isa::avx512) {
    WARN("not run: this processor has no AVX-512 to compare AVX2 with");
    return;
  }
  const Matrix x = make_matrix(30, 500, DType::f32, false, 0, 0, 5);
  const Matrix w = make_matrix(500, 40, DType::bf16, true, 0, 0, 6);
  const auto on = [&](Isa isa) {
    const ScopedIsa scope(isa);
    return multiply<float>(x, w);
  };
  CHECK(same_bits(on(Isa::avx2), on(Isa::avx512)));
}

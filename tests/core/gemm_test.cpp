// GEMM against the naive product: sizes, layouts, storage types, outputs, epilogue, errors, on every instruction set.

#include "perft/core/gemm.hpp"

#include <array>
#include <catch2/catch.hpp>
#include <mutex>

#include "gemm_cases.hpp"

namespace {

using namespace gemm_cases;

template <class C>
void check_product(std::int64_t m, std::int64_t n, std::int64_t k, int layout, DType a_type, DType b_type,
                   std::size_t shift = 0) {
  const Matrix a = make_matrix(m, k, a_type, (layout & 1) != 0, layout % 3, shift, 1);
  const Matrix b = make_matrix(k, n, b_type, (layout & 2) != 0, (layout + 1) % 3, shift, 2);
  INFO("m, n, k = " << m << ", " << n << ", " << k << ", layout " << layout << ", types " << dtype_name(a_type) << " "
                    << dtype_name(b_type) << ", " << isa_name(active_isa()));
  CHECK(worst_error<C>(a, b, multiply<C>(a, b)) <= 1);
}

template <class C>
constexpr DType natural = dtype_of<C>;

}  // namespace

TEMPLATE_TEST_CASE("products agree with the naive one for any size and layout", "[gemm]", bf16, float, double) {
  for (const Isa isa : levels()) {
    const ScopedIsa scope(isa);
    for (const std::int64_t m : {1, 2, 7, 17, 33, 67}) {
      for (const std::int64_t n : {1, 5, 16, 31, 97}) {
        for (const std::int64_t k : {1, 2, 31, 64, 97}) {
          check_product<TestType>(m, n, k, static_cast<int>((m + n + k) % 4), natural<TestType>, natural<TestType>);
        }
      }
    }
    for (int layout = 0; layout < 4; ++layout) {
      check_product<TestType>(64, 64, 64, layout, natural<TestType>, natural<TestType>);
      check_product<TestType>(37, 53, 71, layout, natural<TestType>, natural<TestType>);
      check_product<TestType>(300, 20, 40, layout, natural<TestType>, natural<TestType>);  // several chunks
      check_product<TestType>(20, 300, 40, layout, natural<TestType>, natural<TestType>);
      check_product<TestType>(270, 290, 8, layout, natural<TestType>, natural<TestType>);
      check_product<TestType>(5, 3, 4150, layout, natural<TestType>, natural<TestType>);  // several k blocks
      check_product<TestType>(5, 130, 2112, layout, natural<TestType>, natural<TestType>);
    }
  }
}

TEMPLATE_TEST_CASE("storage types are converted while packing, at any byte alignment", "[gemm]", bf16, float, double) {
  for (const Isa isa : levels()) {
    const ScopedIsa scope(isa);
    for (const DType a_type : {DType::f64, DType::f32, DType::f16, DType::bf16}) {
      for (const DType b_type : {DType::f64, DType::f32, DType::f16, DType::bf16}) {
        for (int layout = 0; layout < 4; ++layout) {
          check_product<TestType>(18, 35, 70, layout, a_type, b_type, static_cast<std::size_t>(layout));
        }
        check_product<TestType>(32, 64, 64, 2, a_type, b_type, 1);
        check_product<TestType>(140, 3, 64, 0, a_type, b_type, 1);
      }
    }
  }
}

TEMPLATE_TEST_CASE("a tail goes on where k ends", "[gemm]", bf16, float, double) {
  for (const Isa isa : levels()) {
    const ScopedIsa scope(isa);
    for (int layout = 0; layout < 16; ++layout) {
      for (const auto& [m, n, k, tail] :
           {std::array{33, 47, 40, 24}, std::array{300, 20, 31, 7}, std::array{5, 290, 64, 1}, std::array{1, 3, 0, 5},
            std::array{9, 4, 6, 0}, std::array{7, 35, 2100, 2050}}) {
        CAPTURE(layout, m, n, k, tail, isa_name(isa));
        const auto part = [&](int rows, int cols, int bit, std::uint64_t seed) {
          return make_matrix(rows, cols, natural<TestType>, (layout & bit) != 0, layout % 3, 0, seed);
        };
        const Matrix a = part(m, k, 1, 21);
        const Matrix b = part(k, n, 2, 22);
        const Matrix a_tail = part(m, tail, 4, 23);
        const Matrix b_tail = part(tail, n, 8, 24);
        Matrix left;
        Matrix right;
        left.rows = m;
        left.cols = k + tail;
        right.rows = k + tail;
        right.cols = n;
        for (int i = 0; i < m; ++i) {
          left.values.insert(left.values.end(), a.values.begin() + i * k, a.values.begin() + (i + 1) * k);
          left.values.insert(left.values.end(), a_tail.values.begin() + i * tail,
                             a_tail.values.begin() + (i + 1) * tail);
        }
        right.values = b.values;
        right.values.insert(right.values.end(), b_tail.values.begin(), b_tail.values.end());
        using A = gemm::Acc<TestType>;
        std::vector<A> c(static_cast<std::size_t>(m * n), 7);
        gemm::Problem<TestType> p;
        p.m = m;
        p.n = n;
        p.k = k;
        p.a = a.operand;
        p.b = b.operand;
        p.tail = gemm::Tail{tail, a_tail.operand, b_tail.operand};
        p.c = {c.data(), dtype_of<A>, n, 1};
        gemm::run<TestType>(p);
        CHECK(worst_error<TestType>(left, right, c) <= 1);
      }
    }
  }
}

TEMPLATE_TEST_CASE("gathered rows and columns are read at their index", "[gemm]", bf16, float, double) {
  const std::vector<std::int32_t> index = {4, 0, 0, 39, 17, 8, 3, 22, 39, 1, 30, 12, 12, 5, 6, 7, 9, 33, 2};
  const auto count = static_cast<std::int64_t>(index.size());
  for (const Isa isa : levels()) {
    const ScopedIsa scope(isa);
    for (int layout = 0; layout < 4; ++layout) {
      const Matrix whole_a = make_matrix(40, 35, natural<TestType>, (layout & 1) != 0, 1, 0, 3);
      const Matrix b = make_matrix(35, 21, natural<TestType>, (layout & 2) != 0, 0, 0, 4);
      Matrix a = whole_a;
      a.operand.data = whole_a.operand.data;
      a.rows = count;
      a.operand.rows = index.data();
      a.values.clear();
      for (const std::int32_t row : index) {
        a.values.insert(a.values.end(), whole_a.values.begin() + row * 35, whole_a.values.begin() + (row + 1) * 35);
      }
      CHECK(worst_error<TestType>(a, b, multiply<TestType>(a, b)) <= 1);

      // The weight gradient: both operands gathered along the summed index.
      const Matrix dy = make_matrix(40, 33, natural<TestType>, false, 2, 0, 5);
      const Matrix x = make_matrix(40, 27, DType::f32, false, 0, 0, 6);
      Matrix left, right;
      left.rows = 33;
      left.cols = right.rows = count;
      right.cols = 27;
      left.operand = {dy.operand.data, dy.operand.dtype, 1, dy.operand.row_stride, nullptr, index.data()};
      right.operand = {x.operand.data, x.operand.dtype, x.operand.row_stride, 1, index.data(), nullptr};
      for (std::size_t i = 0; i < 33; ++i) {
        for (const std::int32_t t : index) {
          left.values.push_back(dy.values[static_cast<std::size_t>(t) * 33 + i]);
        }
      }
      for (const std::int32_t t : index) {
        right.values.insert(right.values.end(), x.values.begin() + t * 27, x.values.begin() + (t + 1) * 27);
      }
      CHECK(worst_error<TestType>(left, right, multiply<TestType>(left, right)) <= 1);
    }
  }
}

TEMPLATE_TEST_CASE("the store converts, accumulates and touches nothing else", "[gemm]", bf16, float, double) {
  using A = gemm::Acc<TestType>;
  const Matrix a = make_matrix(19, 40, natural<TestType>, false, 0, 0, 7);
  const Matrix b = make_matrix(40, 23, natural<TestType>, true, 0, 0, 8);
  const std::vector<A> plain = multiply<TestType>(a, b);
  const auto check_output = [&]<class T>(T start, std::int64_t row_stride, std::int64_t col_stride, bool accumulate) {
    std::vector<T> c(static_cast<std::size_t>(19 * 60 + 60), start);
    gemm::Problem<TestType> p;
    p.m = 19;
    p.n = 23;
    p.k = 40;
    p.a = a.operand;
    p.b = b.operand;
    p.c = {c.data(), dtype_of<T>, row_stride, col_stride, accumulate};
    gemm::run<TestType>(p);
    std::vector<T> want(c.size(), start);
    for (std::int64_t i = 0; i < 19; ++i) {
      for (std::int64_t j = 0; j < 23; ++j) {
        const A value = plain[static_cast<std::size_t>(i * 23 + j)];
        A total = value;
        if (accumulate) {
          total = static_cast<A>(start) + value;
        }
        want[static_cast<std::size_t>(i * row_stride + j * col_stride)] = T(total);
      }
    }
    CHECK(std::memcmp(want.data(), c.data(), c.size() * sizeof(T)) == 0);
  };
  for (const bool accumulate : {false, true}) {
    check_output(0.75F, 23, 1, accumulate);
    check_output(0.75F, 50, 2, accumulate);
    check_output(0.75F, 1, 19, accumulate);
    check_output(bf16(0.75F), 29, 1, accumulate);
    check_output(bf16(0.75F), 1, 20, accumulate);
    if constexpr (std::same_as<TestType, double>) {
      check_output(0.75, 23, 1, accumulate);
      check_output(0.75, 1, 19, accumulate);
    }
  }
}

TEMPLATE_TEST_CASE("k = 0 gives zeros or leaves an accumulated output alone", "[gemm]", bf16, float, double) {
  std::vector<float> c(12, 3);
  gemm::Problem<TestType> p;
  p.m = 3;
  p.n = 4;
  p.c = {c.data(), DType::f32, 4, 1, true};
  gemm::run<TestType>(p);
  CHECK(c == std::vector<float>(12, 3));
  p.c.accumulate = false;
  gemm::run<TestType>(p);
  CHECK(c == std::vector<float>(12, 0));
  c.assign(12, 5);
  p.m = 0;
  gemm::run<TestType>(p);
  p.m = 3;
  p.n = 0;
  gemm::run<TestType>(p);
  CHECK(c == std::vector<float>(12, 5));
}

TEMPLATE_TEST_CASE("the epilogue sees every element of both products once", "[gemm]", bf16, float, double) {
  using A = gemm::Acc<TestType>;

  struct Seen {
    std::mutex mutex;
    std::vector<A> first, second;
    std::vector<int> times;
  };

  for (const Isa isa : levels()) {
    const ScopedIsa scope(isa);
    for (const bool weights_by_row : {true, false}) {
      const Matrix x = make_matrix(70, 45, natural<TestType>, false, 0, 0, 9);
      const Matrix gate = make_matrix(45, 150, natural<TestType>, weights_by_row, 0, 0, 10);
      const Matrix up = make_matrix(45, 150, natural<TestType>, weights_by_row, 0, 0, 11);
      Seen seen;
      seen.first.resize(70 * 150);
      seen.second.resize(70 * 150);
      seen.times.resize(70 * 150);
      gemm::Problem<TestType> p;
      p.m = 70;
      p.n = 150;
      p.k = 45;
      p.a = x.operand;
      p.b = gate.operand;
      p.b2 = up.operand;
      p.context = &seen;
      p.epilogue = [](void* context, const gemm::Problem<TestType>& problem, const gemm::Block<A>& block) {
        auto& s = *static_cast<Seen*>(context);
        const std::lock_guard lock(s.mutex);
        for (std::int64_t i = block.i0; i < block.i1; ++i) {
          for (std::int64_t j = block.j0; j < block.j1; ++j) {
            const std::int64_t at = (i - block.i0) * block.ld_row + (j - block.j0) * block.ld_col;
            const auto to = static_cast<std::size_t>(i * problem.n + j);
            s.first[to] = block.acc[0][at];
            s.second[to] = block.acc[1][at];
            ++s.times[to];
          }
        }
      };
      gemm::run<TestType>(p);
      CHECK(seen.times == std::vector<int>(70 * 150, 1));
      CHECK(seen.first == multiply<TestType>(x, gate));
      CHECK(seen.second == multiply<TestType>(x, up));
    }
  }
}

TEST_CASE("contradictions are refused", "[gemm]") {
  float x = 1;
  gemm::Problem<float> p;
  p.m = p.n = p.k = 1;
  p.a = p.b = {&x, DType::f32, 1, 1};
  CHECK_THROWS_WITH(gemm::run<float>(p), "gemm: neither an epilogue nor output data is given");
  p.c = {&x, DType::f16, 1, 1};
  CHECK_THROWS_WITH(gemm::run<float>(p), "gemm: output is F16, expected F64, F32 or BF16");
  CHECK_THROWS_AS(gemm::run<float>(p), UnsupportedError);
  p.c.dtype = DType::f32;
  p.a.dtype = DType::i8;
  CHECK_THROWS_WITH(gemm::run<float>(p), "gemm: operand a is I8, expected F64, F32, F16 or BF16");
  CHECK_THROWS_AS(gemm::run<float>(p), UnsupportedError);
  p.a.dtype = DType::f32;
  p.b2 = p.b;
  CHECK_THROWS_WITH(gemm::run<float>(p), "gemm: b2 is given without an epilogue to receive its product");
  CHECK_THROWS_AS(gemm::run<float>(p), ValueError);
  p.tail = gemm::Tail{1, p.b, p.b};
  CHECK_THROWS_WITH(gemm::run<float>(p), "gemm: b2 and a tail are given, expected at most one of them");
  p.b2.reset();
  p.tail->k = -1;
  CHECK_THROWS_WITH(gemm::run<float>(p), "gemm: negative size in m, n, k, tail k = 1, 1, 1, -1");
  CHECK_THROWS_AS(gemm::run<float>(p), ShapeError);
  p.tail->k = 1;
  p.tail->b.data = nullptr;
  CHECK_THROWS_WITH(gemm::run<float>(p), "gemm: operand tail b has no data");
  p.tail.reset();
  p.b.data = nullptr;
  CHECK_THROWS_WITH(gemm::run<float>(p), "gemm: operand b has no data");
  p.b.data = &x;
  p.k = -1;
  CHECK_THROWS_WITH(gemm::run<float>(p), "gemm: negative size in m, n, k, tail k = 1, 1, -1, 0");
  CHECK_THROWS_AS(parse_isa("avx1024"), ValueError);
  CHECK_THROWS_WITH(parse_isa("avx1024"),
                    R"(PERFT_ISA is "avx1024", expected portable, avx2, avx512, avx512_bf16 or amx)");
  CHECK(parse_isa("avx2") == Isa::avx2);
}

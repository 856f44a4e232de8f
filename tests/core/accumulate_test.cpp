#include "perft/core/accumulate.hpp"

#include <catch2/catch.hpp>  // test cases

#include "ops/support/harness.hpp"

using namespace harness;
using perft::accumulate;
using perft::bf16;
using perft::ShapeError;
using perft::Tensor;

TEMPLATE_TEST_CASE("accumulate: adds in place, rounded to the type", "", double, float, bf16) {
  using T = TestType;
  for (const std::int64_t n : {0, 1, 37, 40000}) {  // 40 000: more than one chunk
    auto sum = tensor<T>(numbers(n, 1), {n});
    const auto x = tensor<T>(numbers(n, 2), {n});
    Values expected = values(sum);
    const Values added = values(x);
    for (std::size_t i = 0; i < added.size(); ++i) {
      expected[i] += added[i];
    }
    const T* const at = sum.data();
    accumulate(sum, x);
    CHECK(sum.data() == at);
    CHECK(values(sum) == as_operand<T>(expected));
    CHECK(values(x) == values(tensor<T>(numbers(n, 2), {n})));
  }
}

TEST_CASE("accumulate: a part of a larger tensor is added to inside its bounds") {
  auto whole = Tensor<float>::full({10}, 1.0F);
  auto part = whole.slice(0, 3, 6);
  accumulate(part, Tensor<float>::full({3}, 2.0F));
  CHECK(values(whole) == Values{1, 1, 1, 3, 3, 3, 1, 1, 1, 1});
}

TEST_CASE("accumulate: the same bits for 1, 2 and 3 threads") {
  const auto x = tensor<float>(numbers(100001, 1), {100001});
  check_same_bits_for_any_threads([&] {
    auto sum = tensor<float>(numbers(100001, 2), {100001});
    accumulate(sum, x);
    return Bits().add(sum);
  });
}

TEST_CASE("accumulate: error texts") {
  auto sum = Tensor<float>::zeros({2, 3});
  CHECK(error_text<ShapeError>([&] {
          accumulate(sum, Tensor<float>::zeros({3, 2}));
        }) == "accumulate: x is [3, 2], expected [2, 3]");
  CHECK(error_text<ShapeError>([&] {
          accumulate(sum, Tensor<float>::zeros({3, 2}).transpose(0, 1));
        }) == "tensor: span() of a strided view of shape [2, 3]; clone() it first");
  auto turned = Tensor<float>::zeros({3, 2}).transpose(0, 1);
  CHECK(error_text<ShapeError>([&] { accumulate(turned, sum); }) ==
        "tensor: mutable_span() of a strided view of shape [2, 3]");
}

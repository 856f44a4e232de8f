#include "perft/ops/embedding.hpp"

#include <catch2/catch.hpp>  // test cases

#include "ops/support/harness.hpp"
#include "reference/embedding.hpp"

using namespace harness;
using perft::bf16;
using perft::DType;
using perft::Param;
using perft::Recording;
using perft::Tape;
using perft::Tensor;
using perft::ValueError;
using perft::Weight;
using support::close;
using Ids = std::vector<std::int32_t>;

namespace {

std::vector<std::int64_t> wide(const Ids& ids) {
  return {ids.begin(), ids.end()};
}

}  // namespace

TEMPLATE_TEST_CASE("embedding: rows of frozen storage of any format and alignment, rounded once", "", double, float,
                   bf16) {
  using C = TestType;
  const Ids ids{4, 0, 4, 10, 3};
  for (const std::int64_t width : {1, 7, 513}) {  // 513: more than one chunk of the widening buffer
    for (const DType dtype : {DType::bf16, DType::f16, DType::f32, DType::f64}) {
      CAPTURE(width, static_cast<int>(dtype));
      const auto w = frozen<Param<C>>("embed", numbers(11 * width, 1), dtype, 11, width);
      Tape tape;
      Recording recording(tape);
      const auto y = perft::embedding<C>(ids, w.weight);
      const auto expected = reference::embedding(w.values, wide(ids), static_cast<std::size_t>(width));
      // f64 storage goes through Param<C>, a second rounding that can move a bf16 by one place.
      const bool twice = dtype == DType::f64 && std::same_as<C, bf16>;
      CHECK(close(values(y.value()), as_operand<C>(expected), {.rel_to_max = twice ? 0x1p-8 : 0.0}));
      CHECK_FALSE(y.needs_gradient());
      CHECK(tape.size() == 0);
    }
  }
}

TEMPLATE_TEST_CASE("embedding: a trained table gets the gradients of repeated ids added, the padding row none", "",
                   double, float, bf16) {
  using C = TestType;
  using P = Param<C>;
  const std::int64_t width = 67;  // more than one chunk of 64 channels
  const Ids ids{2, 0, 2, 3, 2, 0};
  const auto dy = tensor<C>(numbers(6 * width, 2), {6, width});
  for (const std::int32_t padding : {-1, 0}) {
    Weight<P> w("embed", tensor<P>(numbers(5 * width, 1), {5, width}));
    w.make_trainable();
    prefill_gradient(*w.trained(), 0.5);
    Tape tape;
    Recording recording(tape);
    const auto y = perft::embedding<C>(ids, w, padding);
    CHECK(Bits().add(y.value()) == Bits().add(perft::embedding_forward<C>(ids, w)));
    CHECK(tape.saved_bytes() == 6 * 4);
    CHECK(tape.node(0).name() == "embedding");
    tape.add_gradient(y.edge(), dy);
    tape.backward();
    const auto expected = exact_gradients(
        [&](const std::vector<Complexes>& in) {
          return reference::embedding(in[0], wide(ids), static_cast<std::size_t>(width),
                                      padding < 0 ? std::nullopt : std::optional<std::int64_t>(padding));
        },
        {values(w.parameter()->value())}, values(dy));
    auto allowed = tolerance<C>(3, 0);
    allowed.abs = std::same_as<C, double> ? 1e-15 : support::epsilon<float>();  // 0.5 is added and taken away again
    CHECK(close(added_gradient(*w.trained(), 0.5), expected[0], allowed));
    const auto untouched = added_gradient(*w.trained(), 0.5);
    CHECK(untouched[static_cast<std::size_t>(4 * width)] == 0.0);
  }
}

TEST_CASE("embedding: no token gives no rows") {
  const auto w = frozen<float>("embed", numbers(6, 1), DType::f32, 2, 3);
  CHECK(perft::embedding_forward<float>({}, w.weight).shape() == perft::Shape{0, 3});
}

TEST_CASE("embedding: the same bits for 1, 2 and 3 threads") {
  Ids ids;
  for (std::int32_t t = 0; t < 200; ++t) {
    ids.push_back(t * t % 13);
  }
  const std::int64_t width = 300;
  Weight<float> w("embed", tensor<float>(numbers(13 * width, 1), {13, width}));
  w.make_trainable();
  const auto dy = tensor<float>(numbers(200 * width, 2), {200, width});
  check_same_bits_for_any_threads([&] {
    w.trained()->clear_gradient();
    Tape tape;
    Recording recording(tape);
    const auto y = perft::embedding<float>(ids, w);
    tape.add_gradient(y.edge(), dy);
    tape.backward();
    return Bits().add(y.value()).add(w.trained()->gradient());
  });
}

TEST_CASE("embedding: error texts") {
  const auto w = frozen<float>("embed", numbers(6, 1), DType::f32, 2, 3);
  const auto text = [&](const Ids& ids) {
    return error_text<ValueError>([&] { perft::embedding_forward<float>(ids, w.weight); });
  };
  CHECK(text({0, 1, 2}) == "embedding: token 2 has id 2, expected [0, 2)");
  CHECK(text({-1}) == "embedding: token 0 has id -1, expected [0, 2)");
}

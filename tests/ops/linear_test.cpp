#include "perft/ops/linear.hpp"

#include <catch2/catch.hpp>  // test cases

#include "ops/support/harness.hpp"
#include "reference/linear.hpp"

using namespace harness;
using perft::bf16;
using perft::DType;
using perft::Param;
using perft::Precision;
using perft::Recording;
using perft::ShapeError;
using perft::Tape;
using perft::Tensor;
using perft::Weight;
using support::close;

namespace {

struct Size {
  std::int64_t tokens, in, out;
};

const std::vector<Size> kSizes{{0, 5, 3}, {1, 1, 1}, {5, 0, 3}, {5, 3, 0}, {5, 3, 7}, {17, 13, 31}, {37, 129, 50}};

/// dx = dy W and dW = dyᵀ x: a linear map's derivatives are products, which double gives as exactly as a complex step.
Values product(const Values& a, const Values& b, std::int64_t m, std::int64_t k, std::int64_t n, bool a_transposed) {
  Values c(static_cast<std::size_t>(m * n), 0.0);
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      for (std::int64_t q = 0; q < k; ++q) {
        c[static_cast<std::size_t>(i * n + j)] +=
            a[static_cast<std::size_t>(a_transposed ? q * m + i : i * k + q)] * b[static_cast<std::size_t>(q * n + j)];
      }
    }
  }
  return c;
}

Values forward_reference(const Values& x, const Values& w, const Size& size) {
  if (size.in == 0) {
    return Values(static_cast<std::size_t>(size.tokens * size.out), 0.0);
  }
  return reference::linear(x, w, static_cast<std::size_t>(size.in), static_cast<std::size_t>(size.out));
}

/// Forward and dx of one frozen weight in any storage.
template <class C, class Out>
void check_frozen(DType dtype, const Size& size, Precision precision) {
  using P = Param<C>;
  const auto operand = [&](const Values& v) { return precision == Precision::kParam ? v : as_operand<C>(v); };
  CAPTURE(static_cast<int>(dtype), size.tokens, size.in, size.out, sizeof(Out), precision == Precision::kParam);
  const auto x = tensor<C>(numbers(size.tokens * size.in, 1), {size.tokens, size.in});
  const auto dy =
      tensor<Out>(as_operand<C>(numbers(size.tokens * size.out, 2)), {size.tokens, size.out});  // as it is multiplied
  const auto w = frozen<P>("w", numbers(size.out * size.in, 3), dtype, size.out, size.in);
  const OnlyTrained nothing({});
  Tape tape;
  Recording recording(tape);
  const Leaf<C> input(tape, x);
  const auto y = perft::linear<Out>(input.variable, w.weight, precision);
  const double rounding = std::same_as<Out, bf16> ? 1 : 0;
  CHECK(close(values(y.value()), forward_reference(values(x), operand(w.values), size),
              tolerance<C>(static_cast<double>(size.in), rounding)));
  CHECK(tape.saved_bytes() == 0);
  CHECK(tape.node(0).name() == "linear");
  tape.add_gradient(y.edge(), dy);
  tape.backward();
  CHECK(close(values(tape.take_gradient<C>(input.edge)),
              product(values(dy), operand(w.values), size.tokens, size.out, size.in, false),
              tolerance<C>(static_cast<double>(size.out), 1)));
}

}  // namespace

TEMPLATE_TEST_CASE("linear: frozen storage of any format and alignment; nothing is saved", "", double, float, bf16) {
  using C = TestType;
  for (const Size& size : kSizes) {
    for (const DType dtype : {DType::bf16, DType::f16, DType::f32, DType::f64}) {
      check_frozen<C, C>(dtype, size, Precision::kCompute);
      check_frozen<C, Param<C>>(dtype, size, Precision::kCompute);
      check_frozen<C, Param<C>>(dtype, size, Precision::kParam);
    }
  }
}

TEMPLATE_TEST_CASE("linear: a trained weight gets dW added, and x is kept for it", "", double, float, bf16) {
  using C = TestType;
  using P = Param<C>;
  for (const Size& size : kSizes) {
    for (const Precision precision : {Precision::kCompute, Precision::kParam}) {
      const auto operand = [&](const Values& v) { return precision == Precision::kParam ? v : as_operand<C>(v); };
      CAPTURE(size.tokens, size.in, size.out, precision == Precision::kParam);
      const auto x = tensor<C>(numbers(size.tokens * size.in, 1), {size.tokens, size.in});
      const auto dy = tensor<P>(numbers(size.tokens * size.out, 2), {size.tokens, size.out});
      Weight<P> w("w", tensor<P>(numbers(size.out * size.in, 3), {size.out, size.in}));
      w.make_trainable();
      prefill_gradient(*w.trained(), 0.5);
      Tape tape;
      Recording recording(tape);
      const Leaf<C> input(tape, x);
      const auto y = perft::linear<P>(input.variable, w, precision);
      CHECK(close(values(y.value()), forward_reference(values(x), operand(values(w.parameter()->value())), size),
                  tolerance<C>(static_cast<double>(size.in), 0)));
      CHECK(tape.saved_bytes() == x.bytes());
      tape.add_gradient(y.edge(), dy);
      tape.backward();
      const Values dys = operand(values(dy));
      CHECK(close(values(tape.take_gradient<C>(input.edge)),
                  product(dys, operand(values(w.parameter()->value())), size.tokens, size.out, size.in, false),
                  tolerance<C>(static_cast<double>(size.out), 1)));
      auto for_w = tolerance<C>(static_cast<double>(size.tokens), 0);
      for_w.abs = std::same_as<C, double> ? 1e-15 : 0.5 * support::epsilon<float>();  // subtracting 0.5 again
      CHECK(close(added_gradient(*w.trained(), 0.5), product(dys, values(x), size.out, size.tokens, size.in, true),
                  for_w));
    }
  }
}

TEST_CASE("linear: a trained weight behind a constant gives dW alone") {
  Weight<float> w("w", tensor<float>(numbers(6, 1), {2, 3}));
  w.make_trainable();
  const auto x = tensor<float>(numbers(12, 2), {4, 3});
  const auto dy = tensor<float>(numbers(8, 3), {4, 2});
  Values expected;
  for (const bool constant : {false, true}) {
    w.trained()->clear_gradient();
    Tape tape;
    Recording recording(tape);
    const Leaf<float> input(tape, x);
    const auto y = perft::linear<float>(constant ? perft::Variable<float>(x) : input.variable, w);
    CHECK(tape.saved_bytes() == 4 * 3 * 4);
    tape.add_gradient(y.edge(), dy);
    tape.backward();
    const Values dw = values(w.trained()->gradient());
    if (constant) {
      CHECK(dw == expected);
      CHECK_FALSE(tape.take_gradient<float>(input.edge).defined());
    } else {
      expected = dw;
    }
  }
}

TEST_CASE("linear: an owned but untrained weight is frozen") {
  Weight<float> w("w", tensor<float>(numbers(6, 1), {2, 3}));
  const OnlyTrained nothing({});
  Tape tape;
  Recording recording(tape);
  const Leaf<float> input(tape, tensor<float>(numbers(12, 2), {4, 3}));
  const auto y = perft::linear<float>(input.variable, w);
  CHECK(tape.saved_bytes() == 0);
  tape.add_gradient(y.edge(), Tensor<float>::full({4, 2}, 1.0F));
  CHECK_NOTHROW(tape.backward());
  CHECK_FALSE(w.parameter()->gradient().defined());
}

TEST_CASE("linear: a strided x is read as it lies") {
  const auto stored = tensor<double>(numbers(5 * 7, 1), {5, 7});
  const auto w = frozen<double>("w", numbers(3 * 5, 2), DType::f64, 3, 5);
  const auto x = stored.transpose(0, 1);
  CHECK(Bits().add(perft::linear_forward<double>(x, w.weight)) ==
        Bits().add(perft::linear_forward<double>(x.clone(), w.weight)));
  const auto columns = stored.slice(1, 1, 6);
  const auto square = frozen<double>("w", numbers(25, 2), DType::f64, 5, 5);
  CHECK(Bits().add(perft::linear_forward<double>(columns, square.weight)) ==
        Bits().add(perft::linear_forward<double>(columns.clone(), square.weight)));
}

TEST_CASE("linear: the same bits for 1, 2 and 3 threads, and for a row alone") {
  const std::int64_t tokens = 150, in = 97, out = 131;
  const auto x = tensor<float>(numbers(tokens * in, 1), {tokens, in});
  const auto dy = tensor<float>(numbers(tokens * out, 2), {tokens, out});
  Weight<float> w("w", tensor<float>(numbers(out * in, 3), {out, in}));
  w.make_trainable();
  check_same_bits_for_any_threads([&] {
    w.trained()->clear_gradient();
    Tape tape;
    Recording recording(tape);
    const Leaf<float> input(tape, x);
    const auto y = perft::linear<float>(input.variable, w);
    tape.add_gradient(y.edge(), dy);
    tape.backward();
    return Bits().add(y.value()).add(tape.take_gradient<float>(input.edge)).add(w.trained()->gradient());
  });
  const auto batch = perft::linear_forward<float>(x, w);
  const auto batch_dx = perft::linear_backward_input<float>(dy, w);
  for (const std::int64_t t : {0, 63, 149}) {
    CHECK(Bits().add(perft::linear_forward<float>(x.slice(0, t, t + 1), w)) == Bits().add(batch.slice(0, t, t + 1)));
    CHECK(Bits().add(perft::linear_backward_input<float>(dy.slice(0, t, t + 1), w)) ==
          Bits().add(batch_dx.slice(0, t, t + 1)));
  }
}

TEST_CASE("linear: error texts") {
  const auto w = frozen<float>("lm_head.weight", numbers(6, 1), DType::bf16, 2, 3);
  CHECK(error_text<ShapeError>([&] {
          perft::linear_forward<float>(Tensor<float>::zeros({4, 5}), w.weight);
        }) == "linear: 'lm_head.weight' is [2, 3], expected [*, 5] (last dimension of x [4, 5])");
  CHECK(error_text<ShapeError>([&] { perft::linear_forward<float>(Tensor<float>::zeros({3}), w.weight); }) ==
        "linear: 'lm_head.weight' is [2, 3], expected [*, -1] (last dimension of x [3])");
  CHECK(error_text<ShapeError>([&] {
          perft::linear_backward_input<float>(Tensor<float>::zeros({4, 3}), w.weight);
        }) == "linear: dy is [4, 3], expected [*, 2] ('lm_head.weight')");
}

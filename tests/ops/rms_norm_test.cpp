#include "perft/ops/rms_norm.hpp"

#include <catch2/catch.hpp>  // test cases

#include "ops/support/harness.hpp"
#include "reference/rms_norm.hpp"

using namespace harness;
using perft::bf16;
using perft::Param;
using perft::Parameter;
using perft::Recording;
using perft::ShapeError;
using perft::Tape;
using perft::Tensor;
using perft::Variable;
using support::close;

namespace {

constexpr double kEps = 1e-5;

const auto kReference = [](const std::vector<Complexes>& in) { return reference::rms_norm(in[0], in[1], kEps); };

}  // namespace

TEMPLATE_TEST_CASE("rms_norm: value and gradients through the tape are those of the reference", "", double, float,
                   bf16) {
  using C = TestType;
  using P = Param<C>;
  // 67 rows: more than one chunk of 64 in the weight's gradient.
  for (const auto& [rows, width] :
       std::vector<std::pair<std::int64_t, std::int64_t>>{{0, 5}, {1, 1}, {3, 7}, {5, 37}, {67, 3}, {129, 2}}) {
    CAPTURE(rows, width);
    const auto x = tensor<C>(numbers(rows * width, 1, 3.0), {rows, width});
    const auto dy = tensor<C>(numbers(rows * width, 2), {rows, width});
    Parameter<P> w("norm", tensor<P>(numbers(width, 3, 2.0), {width}));
    w.set_trainable(true);
    prefill_gradient(w, 0.25);
    Tape tape;
    Recording recording(tape);
    const Leaf<C> input(tape, x);
    const auto y = perft::rms_norm(input.variable, w, kEps);
    const auto n = static_cast<double>(width);
    CHECK(close(values(y.value()), reference::rms_norm(values(x), values(w.value()), kEps), tolerance<C>(n, 1)));
    tape.add_gradient(y.edge(), dy);
    tape.backward();
    const auto expected = exact_gradients(kReference, {values(x), values(w.value())}, values(dy));
    // dx subtracts two terms, each at most |w dy| / rms: for a narrow row they nearly cancel.
    double term = 0;
    for (const double r : values(perft::rms_norm_forward(x, w.value(), kEps).inverse)) {
      term = std::max(term, 2.0 * r);  // |w| < 2, |dy| < 1
    }
    const support::Tolerance for_x{.abs = tolerance<perft::Param<C>>(4 * n, 0).rel_to_max * term,
                                   .rel_to_max = tolerance<C>(0, 1).rel_to_max,
                                   .allow_empty = true};
    CHECK(close(values(tape.take_gradient<C>(input.edge)), expected[0], for_x));
    auto for_w = tolerance<C>(static_cast<double>(rows), 0);
    for_w.abs = std::same_as<C, double> ? 1e-15 : 0.25 * support::epsilon<float>();  // subtracting 0.25 again
    CHECK(close(added_gradient(w, 0.25), expected[1], for_w));
  }
}

TEST_CASE("rms_norm: eps is inside the root") {
  const auto x = tensor<double>({1e-3, -1e-3}, {1, 2});
  const auto w = tensor<double>({1, 1}, {2});
  const double y = 1e-3 / std::sqrt(1e-6 + 1e-6);
  CHECK(close(values(perft::rms_norm_forward(x, w, 1e-6).y), {y, -y}, {.abs = 1e-15}));
  CHECK(close(values(perft::rms_norm_forward(x, w, 1e-6).inverse), {1 / std::sqrt(2e-6)}, {.rel_to_max = 1e-15}));
}

TEST_CASE("rms_norm: a zero row gives zeros, not NaN") {
  const auto w = tensor<float>({1, 2, 3}, {3});
  CHECK(values(perft::rms_norm_forward(tensor<float>({0, 0, 0}, {1, 3}), w, kEps).y) == Values{0, 0, 0});
}

TEST_CASE("rms_norm: the gradient of w is added inside its own memory") {
  const auto x = tensor<float>(numbers(70 * 5, 1), {70, 5});
  const auto dy = tensor<float>(numbers(70 * 5, 2), {70, 5});
  const auto w = tensor<float>(numbers(5, 3), {5});
  const auto inverse = perft::rms_norm_forward(x, w, kEps).inverse;
  auto alone = Tensor<float>::zeros({5});
  perft::rms_norm_backward_weight(dy, x, inverse, alone);
  auto whole = Tensor<float>::full({21}, 7.0F);
  auto middle = whole.slice(0, 8, 13);
  perft::rms_norm_backward_weight(dy, x, inverse, middle);
  for (std::int64_t i = 0; i < 21; ++i) {
    const bool inside = i >= 8 && i < 13;
    const float expected = inside ? 7.0F + alone.data()[i - 8] : 7.0F;
    CHECK(close(whole.data()[i], expected, {.abs = inside ? 1e-5 : 0.0}));  // 7 + sum of two chunks, in another order
  }
}

TEST_CASE("rms_norm: what is frozen has no gradient, and bytes are kept only if something is wanted") {
  const auto x = tensor<bf16>(numbers(3 * 7, 1), {3, 7});
  Parameter<float> w("norm", tensor<float>(numbers(7, 2), {7}));
  SECTION("nothing is wanted: nothing is recorded") {
    Tape tape;
    Recording recording(tape);
    CHECK_FALSE(perft::rms_norm(Variable<bf16>(x), w, kEps).needs_gradient());
    CHECK(tape.size() == 0);
  }
  SECTION("frozen w") {
    Tape tape;
    Recording recording(tape);
    const Leaf<bf16> input(tape, x);
    const auto y = perft::rms_norm(input.variable, w, kEps);
    CHECK(tape.saved_bytes() == 3 * 7 * 2 + 3 * 4);
    CHECK(tape.node(0).name() == "rms_norm");
    tape.add_gradient(y.edge(), x);
    tape.backward();
    CHECK(tape.take_gradient<bf16>(input.edge).defined());
    CHECK_FALSE(w.gradient().defined());
  }
  SECTION("frozen x") {
    w.set_trainable(true);
    const auto backward = [&](Tape& tape, const Variable<bf16>& y) {
      tape.add_gradient(y.edge(), x);
      tape.backward();
      const Values dw = values(w.gradient());
      w.clear_gradient();
      return dw;
    };
    Values expected;
    {
      Tape tape;
      Recording recording(tape);
      const Leaf<bf16> input(tape, x);
      expected = backward(tape, perft::rms_norm(input.variable, w, kEps));
    }
    Tape tape;
    Recording recording(tape);
    const auto y = perft::rms_norm(Variable<bf16>(x), w, kEps);
    CHECK(tape.saved_bytes() == 3 * 7 * 2 + 3 * 4);
    CHECK(backward(tape, y) == expected);
  }
}

TEST_CASE("rms_norm: the same bits for 1, 2 and 3 threads, and for a row alone") {
  const std::int64_t rows = 150, width = 257;
  const auto x = tensor<float>(numbers(rows * width, 1), {rows, width});
  const auto dy = tensor<float>(numbers(rows * width, 2), {rows, width});
  Parameter<float> w("norm", tensor<float>(numbers(width, 3), {width}));
  w.set_trainable(true);
  check_same_bits_for_any_threads([&] {
    w.clear_gradient();
    Tape tape;
    Recording recording(tape);
    const Leaf<float> input(tape, x);
    const auto y = perft::rms_norm(input.variable, w, kEps);
    tape.add_gradient(y.edge(), dy);
    tape.backward();
    return Bits().add(y.value()).add(tape.take_gradient<float>(input.edge)).add(w.gradient());
  });
  const auto batch = perft::rms_norm_forward(x, w.value(), kEps).y;
  const auto alone = perft::rms_norm_forward(x.slice(0, 91, 92), w.value(), kEps).y;
  CHECK(Bits().add(alone) == Bits().add(batch.slice(0, 91, 92)));
}

TEST_CASE("rms_norm: error texts") {
  const auto x = Tensor<float>::zeros({2, 3});
  const auto w = Tensor<float>::zeros({3});
  const auto forward = [](const Tensor<float>& a, const Tensor<float>& b) {
    return error_text<ShapeError>([&] { perft::rms_norm_forward(a, b, kEps); });
  };
  CHECK(forward(w, w) == "rms_norm: x is [3], expected a contiguous [T, D]");
  CHECK(forward(x.transpose(0, 1), w) == "rms_norm: x is [3, 2], expected a contiguous [T, D]");
  CHECK(forward(x, Tensor<float>::zeros({2})) == "rms_norm: w is [2], expected [3] (last dimension of x [2, 3])");
  const auto backward = [&](const Tensor<float>& dy) {
    return error_text<ShapeError>([&] { perft::rms_norm_backward_input(dy, x, w, Tensor<float>::zeros({2})); });
  };
  CHECK(backward(Tensor<float>::zeros({2, 2})) == "rms_norm: dy is [2, 2], expected [2, 3]");
  CHECK(backward(Tensor<float>::zeros({3, 2}).transpose(0, 1)) == "rms_norm: dy is [2, 3], expected [2, 3]");
}

#include "perft/train/adamw.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <memory>
#include <vector>

#include "ops/support/harness.hpp"
#include "reference/adamw.hpp"
#include "support/close.hpp"

using harness::numbers;
using support::close;

namespace {

template <class P>
std::unique_ptr<perft::Parameter<P>> parameter(const harness::Values& value) {
  auto made =
      std::make_unique<perft::Parameter<P>>("p", harness::tensor<P>(value, {static_cast<std::int64_t>(value.size())}));
  made->set_trainable(true);
  return made;
}

template <class P>
void set_gradient(perft::Parameter<P>& parameter, const harness::Values& gradient) {
  for (std::size_t i = 0; i < gradient.size(); ++i) {
    parameter.gradient_accumulator().mutable_span()[i] = static_cast<P>(gradient[i]);
  }
}

}  // namespace

TEST_CASE("AdamW: the first two steps by hand") {
  // Step 1: m̂ = g and v̂ = g², so every entry moves by lr · sign(g) whatever its size (eps aside).
  auto p = parameter<double>({1.0, -2.0, 0.5});
  perft::AdamW<double> adam({p.get()}, {.eps = 0});
  set_gradient(*p, {0.001, -4.0, 100.0});
  adam.step(0.125);
  CHECK(close(harness::values(p->value()), {0.875, -1.875, 0.375}, {.abs = 1e-14}));
  CHECK(close(harness::values(adam.state()[0].m), {0.0001, -0.4, 10.0}, {.abs = 1e-14}));
  CHECK(close(harness::values(adam.state()[0].v), {1e-9, 0.016, 10.0}, {.abs = 1e-14}));
  CHECK(adam.state()[0].steps == 1);
  // Step 2 with the opposite gradient: m = 0.09 g − 0.1 g, m̂ = m / 0.19; v̂ = g² again.
  set_gradient(*p, {-0.001, 4.0, -100.0});
  adam.step(0.125);
  const double back = 0.125 * 0.01 / 0.19;
  CHECK(close(harness::values(p->value()), {0.875 + back, -1.875 - back, 0.375 + back}, {.abs = 1e-12}));
}

TEST_CASE("AdamW: eps, decay and the clipping factor are where the formula has them") {
  auto p = parameter<double>({2.0});
  perft::AdamW<double> adam({p.get()}, {.eps = 0.5, .weight_decay = 0.1});
  set_gradient(*p, {3.0});
  adam.step(0.2, 0.5);  // g = 1.5: p = 2 (1 − 0.02) − 0.2 · 1.5 / (1.5 + 0.5)
  CHECK(close(harness::values(p->value()), {1.96 - 0.15}, {.abs = 1e-14}));
  CHECK(p->gradient().span()[0] == 3.0);  // gradients are left as they are
}

TEMPLATE_TEST_CASE("AdamW is the reference's over ten steps of several parameters", "", float, double) {
  const double tolerance = std::same_as<TestType, double> ? 1e-14 : 1e-6;
  std::vector<std::unique_ptr<perft::Parameter<TestType>>> owned;
  std::vector<perft::Parameter<TestType>*> list;
  std::vector<std::vector<double>> expected;
  std::vector<reference::AdamWState> states(3);
  for (const int n : {1, 7, 300}) {
    owned.push_back(parameter<TestType>(numbers(n, static_cast<unsigned>(n))));
    list.push_back(owned.back().get());
    expected.push_back(harness::values(owned.back()->value()));
  }
  perft::AdamW<TestType> adam(list, {.weight_decay = 0.05});
  for (int step = 1; step <= 10; ++step) {
    std::vector<std::vector<double>> gradients;
    std::vector<std::vector<double>*> pointers;
    for (std::size_t i = 0; i < list.size(); ++i) {
      set_gradient(*list[i], numbers(list[i]->value().numel(), static_cast<unsigned>(100 * step) + unsigned(i), 2.0));
      gradients.push_back(harness::values(list[i]->gradient()));
    }
    for (auto& gradient : gradients) pointers.push_back(&gradient);
    const double norm = reference::clip_grad_norm(pointers, 1.0);
    CHECK(close(perft::gradient_norm(list), norm, {.rel_to_max = 1e-14}));
    adam.step(0.01, perft::clip_factor(norm, 1.0));
    for (std::size_t i = 0; i < list.size(); ++i) {
      reference::adamw_step(expected[i], gradients[i], states[i], step, {.lr = 0.01, .weight_decay = 0.05});
      CHECK(close(harness::values(list[i]->value()), expected[i], {.abs = tolerance}));
    }
  }
}

TEST_CASE("AdamW leaves a parameter without a gradient alone and counts its steps apart") {
  auto a = parameter<float>({1}), b = parameter<float>({1});
  perft::AdamW<float> adam({a.get(), b.get()});
  set_gradient(*a, {1});
  CHECK(perft::gradient_norm<float>({a.get(), b.get()}) == 1.0);
  adam.step(0.5);
  CHECK(a->value().span()[0] == Approx(0.5f));
  CHECK(b->value().span()[0] == 1.0f);
  CHECK_FALSE(adam.state()[1].m.defined());
  CHECK(adam.state()[1].steps == 0);
  set_gradient(*b, {1});
  adam.step(0.5);  // b's first step is corrected as a first step
  CHECK(b->value().span()[0] == Approx(0.5f));
  CHECK(adam.state()[0].steps == 2);
  CHECK(adam.state()[1].steps == 1);
  // A zero gradient is not a missing one: momentum moves the parameter on.
  const float before = a->value().span()[0];
  set_gradient(*a, {0});
  adam.step(0.5);
  CHECK(a->value().span()[0] < before);
}

TEST_CASE("clip_factor is clip_grad_norm_'s, and 0 switches clipping off") {
  CHECK(perft::clip_factor(0.5, 1.0) == 1.0);
  CHECK(perft::clip_factor(1.0, 1.0) == 1.0 / (1.0 + 1e-6));
  CHECK(perft::clip_factor(4.0, 1.0) == 1.0 / (4.0 + 1e-6));
  CHECK(perft::clip_factor(4.0, 3.0) == 3.0 / (4.0 + 1e-6));
  CHECK(perft::clip_factor(1e9, 0.0) == 1.0);
}

TEST_CASE("AdamW and gradient_norm give the same bits for any number of threads") {
  constexpr std::int64_t n = 3 * (std::int64_t{1} << 14) + 17;
  harness::check_same_bits_for_any_threads([&] {
    auto p = parameter<float>(numbers(n, 1));
    perft::AdamW<float> adam({p.get()});
    harness::Bits bits;
    for (unsigned step = 0; step < 2; ++step) {
      set_gradient(*p, numbers(n, 2 + step));
      bits.add(harness::tensor<double>({perft::gradient_norm<float>({p.get()})}, {1}));
      adam.step(1e-3, 0.7);
    }
    return bits.add(p->value()).add(adam.state()[0].m).add(adam.state()[0].v);
  });
}

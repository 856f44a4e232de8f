// Activations may begin anywhere: one element past a 64-byte boundary, every op gives the bits it gives on it.

#include <catch2/catch.hpp>  // test cases
#include <cstdint>           // addresses
#include <memory>            // plans

#include "ops/support/low_rank_case.hpp"
#include "perft/ops/add.hpp"
#include "perft/ops/attention.hpp"
#include "perft/ops/cross_entropy.hpp"
#include "perft/ops/linear.hpp"
#include "perft/ops/low_rank.hpp"
#include "perft/ops/moe_experts_backward.hpp"
#include "perft/ops/rms_norm.hpp"
#include "perft/ops/rope.hpp"
#include "perft/ops/swiglu.hpp"

using namespace harness;
using perft::bf16;
using perft::Param;
using perft::Shape;
using perft::Tensor;
using perft::Variable;

namespace {

constexpr std::int64_t kTokens = 21, kWidth = 38;  // no multiple of a vector

/// The same elements, `off` elements past an aligned address.
template <class T>
Tensor<T> moved(const Tensor<T>& x, std::int64_t off) {
  auto storage = Tensor<T>::empty({x.numel() + off});
  Tensor<T> y = storage.slice(0, off, x.numel() + off).reshape(x.shape());
  std::copy_n(x.data(), x.numel(), y.mutable_data());
  const auto address = reinterpret_cast<std::uintptr_t>(y.data());
  CHECK((address % 64 == 0) == (off == 0));
  return y;
}

/// run(tape, place) -> Bits of values and gradients, where place(x) puts a tensor; the same wherever that is.
template <class Run>
void check_anywhere(const char* op, Run run) {
  INFO(op);
  const auto at = [&](std::int64_t off) {
    perft::Tape tape;
    perft::Recording recording(tape);
    return run(tape, [off](const auto& x) { return moved(x, off); });
  };
  const Bits aligned = at(0);
  CHECK(aligned.size() > 0);
  for (const std::int64_t off : {1, 3}) {
    CHECK(at(off) == aligned);
  }
}

/// Seeds y with dy, runs backward, and returns the bits of y and of the leaves' gradients.
template <class Y, class... Leaves>
Bits backward(perft::Tape& tape, const Variable<Y>& y, const Tensor<Y>& dy, const Leaves&... leaves) {
  Bits bits;
  bits.add(y.value());
  tape.add_gradient(y.edge(), dy);
  tape.backward();
  const auto take = [&]<class T>(const Leaf<T>& leaf) {
    const auto gradient = tape.template take_gradient<T>(leaf.edge);
    REQUIRE(gradient.defined());
    bits.add(gradient);
  };
  (take(leaves), ...);
  return bits;
}

template <class T>
Tensor<T> irregular(unsigned seed, const Shape& shape) {
  return tensor<T>(numbers(shape.numel(), seed), shape);
}

}  // namespace

TEMPLATE_TEST_CASE("row ops give the same bits on activations off any boundary", "", float, bf16) {
  using C = TestType;
  using P = Param<C>;
  const auto x = irregular<C>(1, {kTokens, kWidth}), y = irregular<C>(2, {kTokens, kWidth});
  const auto dy = irregular<C>(3, {kTokens, kWidth});
  const auto w = irregular<P>(4, {kWidth});
  check_anywhere("add", [&](perft::Tape& tape, auto place) {
    const Leaf<C> a(tape, place(x)), b(tape, place(y));
    return backward(tape, perft::add(a.variable, b.variable), place(dy), a, b);
  });
  check_anywhere("add, rounding", [&](perft::Tape& tape, auto place) {
    const Leaf<C> a(tape, place(x));
    const Leaf<P> b(tape, place(irregular<P>(2, {kTokens, kWidth})));
    return backward(tape, perft::add(a.variable, b.variable), place(dy), a, b);
  });
  check_anywhere("swiglu", [&](perft::Tape& tape, auto place) {
    const Leaf<C> a(tape, place(x)), b(tape, place(y));
    return backward(tape, perft::swiglu(a.variable, b.variable), place(dy), a, b);
  });
  check_anywhere("rms_norm", [&](perft::Tape& tape, auto place) {
    const Leaf<C> a(tape, place(x));
    perft::Parameter<P> weight("w", place(w));
    weight.set_trainable(true);
    Bits bits = backward(tape, perft::rms_norm(a.variable, weight, 1e-5), place(dy), a);
    return bits.add(weight.gradient());
  });
  check_anywhere("rope", [&](perft::Tape& tape, auto place) {
    const Leaf<C> a(tape, place(x));
    const std::vector<std::int32_t> positions(kTokens, 5);
    auto table = perft::rope_table<P>(positions, 2, 1e4);
    table = {place(table.cosine), place(table.sine)};
    return backward(tape, perft::rope(a.variable, table), place(dy), a);
  });
}

TEMPLATE_TEST_CASE("products give the same bits on activations off any boundary", "", float, bf16) {
  using C = TestType;
  using P = Param<C>;
  const auto x = irregular<C>(1, {kTokens, kWidth});
  check_anywhere("linear", [&](perft::Tape& tape, auto place) {
    const Leaf<C> a(tape, place(x));
    perft::Weight<P> w("w", place(irregular<P>(2, {17, kWidth})));
    w.make_trainable();
    Bits bits = backward(tape, perft::linear<C>(a.variable, w), place(irregular<C>(3, {kTokens, 17})), a);
    return bits.add(w.trained()->gradient());
  });
  for (const bool trained : {false, true}) {
    check_anywhere("cross_entropy", [&](perft::Tape& tape, auto place) {
      const Leaf<C> a(tape, place(x));
      perft::Weight<P> w("w", place(irregular<P>(2, {43, kWidth})));
      if (trained) w.make_trainable();
      Bits bits = backward(tape, perft::cross_entropy(a.variable, w, {{0, 7, 20, 7}, {1, 42, 0, 5}}, 0.25),
                           Tensor<P>::full({1}, P{1}), a);
      if (trained) bits.add(w.trained()->gradient());
      return bits;
    });
  }
}

TEMPLATE_TEST_CASE("attention gives the same bits on activations off any boundary", "", float, bf16) {
  using C = TestType;
  const perft::AttentionShape shape{6, 2, 9, 0};
  const auto segments =
      std::make_shared<const std::vector<perft::Segment>>(std::vector<perft::Segment>{{0, 17, 17}, {17, 4, 2}});
  check_anywhere("attention", [&](perft::Tape& tape, auto place) {
    const Leaf<C> q(tape, place(irregular<C>(1, {kTokens, 54}))), k(tape, place(irregular<C>(2, {kTokens, 18}))),
        v(tape, place(irregular<C>(3, {kTokens, 18})));
    return backward(tape, perft::attention(q.variable, k.variable, v.variable, segments, shape),
                    place(irregular<C>(4, {kTokens, 54})), q, k, v);
  });
}

TEMPLATE_TEST_CASE("routed ops give the same bits on activations off any boundary", "", float, bf16) {
  using C = TestType;
  using P = Param<C>;
  const auto x = irregular<C>(1, {kTokens, kWidth});
  const auto dy = irregular<P>(2, {kTokens, kWidth});
  const auto weights = irregular<P>(3, {kTokens, 2});
  std::vector<std::int32_t> chosen;
  for (std::int32_t t = 0; t < kTokens; ++t) chosen.insert(chosen.end(), {t % 3, (t + 1) % 3});
  const auto ids = int_tensor(chosen, {kTokens, 2});
  for (const perft::DeltaForm form : {perft::DeltaForm::kLora, perft::DeltaForm::kParallel}) {
    check_anywhere("low_rank", [&](perft::Tape& tape, auto place) {
      const Leaf<C> a(tape, place(x));
      const Leaf<P> w(tape, place(weights));
      auto bank = make_bank<P>(form, kWidth, kWidth, {3, 1, 5}, 10);
      for (auto& expert : bank.experts) {
        expert->a.mutable_value() = place(expert->a.value());
        expert->b.mutable_value() = place(expert->b.value());
      }
      train_bank(bank, true, true, 0.0);
      const auto y = perft::low_rank(a.variable, place(ids), w.variable, bank, make_dropout(0.3, kTokens, 1));
      Bits bits = backward(tape, y, place(dy), a, w);
      for (auto& expert : bank.experts) bits.add(expert->a.gradient()).add(expert->b.gradient());
      return bits;
    });
  }
  auto plan = std::make_shared<const perft::RoutingPlan>(perft::make_routing_plan(ids, 3));
  for (const auto policy : {perft::HiddenPolicy::kSave, perft::HiddenPolicy::kRecompute}) {
    check_anywhere("moe_experts", [&](perft::Tape& tape, auto place) {
      const Leaf<C> a(tape, place(x));
      const Leaf<P> w(tape, place(weights));
      perft::ExpertTable<P> table;
      for (unsigned e = 0; e < 3; ++e) {
        const auto matrix = [&](unsigned seed, std::int64_t rows, std::int64_t cols) {
          perft::Weight<P> m("m", place(irregular<P>(seed + 10 * e, {rows, cols})));
          m.make_trainable();
          return m;
        };
        table.push_back({matrix(20, 19, kWidth), matrix(21, 19, kWidth), matrix(22, kWidth, 19)});
      }
      const auto y = perft::moe_experts(a.variable, w.variable, plan, table, {}, policy);
      Bits bits = backward(tape, y, place(dy), a, w);
      for (auto& expert : table) {
        for (auto* m : {&expert.gate, &expert.up, &expert.down}) bits.add(m->trained()->gradient());
      }
      return bits;
    });
  }
}

#include "perft/autograd/saved.hpp"

#include <catch2/catch.hpp>  // test cases

#include "ops/support/harness.hpp"
#include "perft/ops/clamp.hpp"
#include "perft/ops/rms_norm.hpp"
#include "perft/ops/rope.hpp"

using namespace harness;
using perft::bf16;
using perft::Cpu;
using perft::Saved;
using perft::Tape;
using perft::Tensor;
using perft::Variable;

TEST_CASE("saved: a tensor is kept and counted, nothing is nothing") {
  const auto x = tensor<float>({1, 2, 3}, {3});
  const Saved<float> saved = Variable<float>(x).saved();
  CHECK(saved.bytes() == 3 * sizeof(float));
  CHECK(saved.get().data() == x.data());
  CHECK(Saved<float>().bytes() == 0);
  CHECK_FALSE(Saved<float>().get().defined());
}

TEST_CASE("saved: a recipe is formed once for all who share it, counts nothing, and goes with the last of them") {
  int formed = 0;
  const auto x = tensor<float>({1, 2, 3}, {3});
  std::weak_ptr<const perft::Recipe<float>> alive;
  {
    Saved<float> first, second;
    {
      const Variable<float> v = Variable<float>(x).formed_by(perft::make_recipe<float, Cpu>([&] {
        ++formed;
        return x.clone();
      }));
      alive = v.recipe();
      first = v.saved();
      second = v.saved();
      CHECK(v.value().data() == x.data());
    }
    CHECK(formed == 0);
    CHECK(first.bytes() == 0);
    CHECK(values(first.get()) == values(x));
    CHECK(first.get().data() == second.get().data());
    CHECK(formed == 1);
    first = {};
    CHECK_FALSE(alive.expired());
  }
  CHECK(alive.expired());
}

TEMPLATE_TEST_CASE("saved: norm, clamp and RoPE carry a recipe with the same bits where the norm is recorded", "",
                   float, bf16) {
  using C = TestType;
  using P = perft::Param<C>;
  const std::int64_t tokens = 5, width = 8;
  perft::Parameter<P> w("w", tensor<P>(numbers(width, 1), {width}));
  const auto table = perft::rope_table<P>(std::vector<std::int32_t>{0, 1, 2, 3, 4}, 4, 1e4);
  const auto x = tensor<C>(numbers(tokens * width, 2), {tokens, width});
  {
    const Variable<C> constant(x);
    CHECK(perft::rms_norm(constant, w, 1e-5).recipe() == nullptr);  // no tape
    CHECK(perft::rope(constant, table).recipe() == nullptr);
  }
  Tape tape;
  perft::Recording recording(tape);
  CHECK(perft::rms_norm(Variable<C>(x), w, 1e-5).recipe() == nullptr);  // nothing keeps x
  CHECK(tape.size() == 0);
  const Leaf<C> leaf(tape, x);
  CHECK(perft::rope(leaf.variable, table).recipe() == nullptr);
  CHECK(perft::clamp(leaf.variable, 0.5).recipe() == nullptr);
  const auto normed = perft::rms_norm(leaf.variable, w, 1e-5);
  const auto clamped = perft::clamp(normed, 0.5);
  const auto rotated = perft::rope(clamped, table);
  for (const auto& v : {normed, clamped, rotated}) {
    REQUIRE(v.recipe() != nullptr);
    CHECK(v.saved().bytes() == 0);
    CHECK(Bits().add(v.saved().get()) == Bits().add(v.value()));
    CHECK(v.saved().get().data() != v.value().data());
  }
  // The clamp of the leaf keeps x, and the norm its x and 1 / rms; the clamp of the normed and RoPE keep nothing.
  CHECK(tape.saved_bytes() == 2 * x.bytes() + static_cast<std::size_t>(tokens) * sizeof(P));
}

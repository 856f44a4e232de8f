// Trainer::step for this folder's tests, compiled once, and that a rate of 0 changes no value.

#include <catch2/catch.hpp>

#include "models/support/cases.hpp"
#include "models/support/engine.hpp"
#include "models/support/module_instances.hpp"
#include "ops/support/harness.hpp"
#include "perft/train/trainer.hpp"

PERFT_TEST_MODULES(extern template, float)
PERFT_TEST_MODULES(extern template, double)

namespace models_test {

namespace {

template <class C>
perft::StepResult step_of(Engine<C>& engine, const std::vector<perft::EncodedRow>& rows,
                          const perft::TrainerOptions& options, std::uint64_t step, double lr) {
  return perft::Trainer<C, perft::CausalLm<C>>(engine.model(), engine.trained(), options).step(rows, step, lr);
}

}  // namespace

perft::StepResult train_step(Engine<float>& engine, const std::vector<perft::EncodedRow>& rows,
                             const perft::TrainerOptions& options, std::uint64_t step, double lr) {
  return step_of(engine, rows, options, step, lr);
}

perft::StepResult train_step(Engine<double>& engine, const std::vector<perft::EncodedRow>& rows,
                             const perft::TrainerOptions& options, std::uint64_t step, double lr) {
  return step_of(engine, rows, options, step, lr);
}

}  // namespace models_test

TEST_CASE("a training step of rate 0 has gradients and changes no value; another rate does") {
  using namespace models_test;
  const io_test::TempFolder folder;
  (void)write_random_checkpoint(small_olmoe(), {}, folder.path());
  Engine<float> engine(folder.path());
  perft::AdapterSpec spec;
  spec.method = perft::Method::kPerftS;
  engine.attach(spec);
  const auto bits = [&] {
    harness::Bits all;
    for (const auto* parameter : engine.trained()) all.add(parameter->value());
    return all;
  };
  const auto before = bits();
  const auto rows = rows_of(random_batch({{0, 5}, {0, 3}}, 5, 37, 1, 3));
  CHECK(train_step(engine, rows, {}, 1, 0.0).gradient_norm > 0);
  CHECK(bits() == before);
  (void)train_step(engine, rows, {}, 1, 0.1);
  CHECK_FALSE(bits() == before);
}

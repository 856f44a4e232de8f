// Loading adapter folders in float, compiled once for this folder's tests.

#include <catch2/catch.hpp>

#include "models/support/cases.hpp"
#include "models/support/engine.hpp"
#include "models/support/module_instances.hpp"
#include "ops/support/harness.hpp"
#include "perft/peft/adapter_io.hpp"

PERFT_TEST_MODULES(extern template, float)

namespace models_test {

perft::AdapterConfig load_adapter(Engine<float>& engine, const std::string& dir) {
  return perft::load_adapter<float>(engine.model(), engine.facts(), dir);
}

void load_adapter_weights(Engine<float>& engine, const std::string& file) {
  perft::load_adapter_weights<float>(engine.model(), file);
}

}  // namespace models_test

TEST_CASE("an adapter loaded from its folder is the adapter saved") {
  using namespace models_test;
  const io_test::TempFolder model, folder;
  (void)write_random_checkpoint(small_mixtral(), {}, model.path());
  Engine<float> engine(model.path()), other(model.path());
  perft::AdapterSpec spec;
  spec.method = perft::Method::kPerftS;
  spec.rank = 2;
  engine.attach(spec);
  save_adapter(engine, spec, folder.path());
  CHECK(load_adapter(other, folder.path()).spec.rank == 2);
  harness::Bits saved, loaded;
  for (const auto* parameter : engine.trained()) saved.add(parameter->value());
  for (const auto* parameter : other.trained()) loaded.add(parameter->value());
  CHECK(saved.size() == 2 * 2 * 2 * 24 * sizeof(float));
  CHECK(loaded == saved);
}

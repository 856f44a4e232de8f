// Saving adapter folders in float, compiled once for this folder's tests.

#include <catch2/catch.hpp>

#include "io/temp_folder.hpp"
#include "models/support/cases.hpp"
#include "models/support/engine.hpp"
#include "models/support/ops_instances.hpp"
#include "perft/models/causal_lm.hpp"
#include "perft/peft/adapter_io.hpp"

namespace perft::inline PERFT_ABI {
extern template class CausalLm<float>;
}

namespace models_test {

void save_adapter(Engine<float>& engine, const perft::AdapterSpec& spec, const std::string& dir) {
  perft::save_adapter<float>(engine.model(), spec, engine.facts(), dir);
}

}  // namespace models_test

TEST_CASE("an adapter folder holds two files, and a second save replaces them") {
  using namespace models_test;
  const io_test::TempFolder model, folder;
  (void)write_random_checkpoint(small_mixtral(), {}, model.path());
  Engine<float> engine(model.path());
  perft::AdapterSpec spec;
  spec.method = perft::Method::kPerftS;
  spec.rank = 2;
  engine.attach(spec);
  save_adapter(engine, spec, folder.path());
  const std::string first = io_test::read_bytes(folder.path("adapter_model.safetensors"));
  CHECK(folder.files() == 2);
  engine.trained()[0]->mutable_value().mutable_span()[0] += 1;
  save_adapter(engine, spec, folder.path());
  CHECK(folder.files() == 2);
  const std::string second = io_test::read_bytes(folder.path("adapter_model.safetensors"));
  CHECK(second.size() == first.size());
  CHECK(second != first);
}

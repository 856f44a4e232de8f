// load_model and adapter folders in float, compiled once for this folder's tests.

#include <catch2/catch.hpp>

#include "models/support/cases.hpp"
#include "models/support/engine.hpp"
#include "models/support/ops_instances.hpp"
#include "ops/support/harness.hpp"
#include "perft/models/load_model.hpp"
#include "perft/peft/adapter_io.hpp"

namespace models_test {

perft::AdapterConfig load_adapter(Engine<float>& engine, const std::string& dir) {
  return perft::load_adapter<float>(engine.model(), engine.facts(), dir);
}

void load_adapter_weights(Engine<float>& engine, const std::string& file) {
  perft::load_adapter_weights<float>(engine.model(), file);
}

void save_adapter(Engine<float>& engine, const perft::AdapterSpec& spec, const std::string& dir) {
  perft::save_adapter<float>(engine.model(), spec, engine.facts(), dir);
}

}  // namespace models_test

TEST_CASE("load_model gives the model of its folder, after the file is gone") {
  using namespace models_test;
  const io_test::TempFolder folder;
  (void)write_random_checkpoint(small_olmoe(), {.shards = 2}, folder.path());
  const perft::Batch batch = padded(random_batch({{0, 5}}, 5, 37, 1, 3), 37).batch;
  Engine<float> engine(folder.path());
  const auto model = perft::load_model<float>(folder.path());
  std::filesystem::remove(folder.path("model-1-of-2.safetensors"));
  perft::NoRecording pause;
  auto context = model->context(batch);
  const auto logits = model->logits(model->forward(batch, context).value());
  CHECK(harness::Bits().add(logits) == harness::Bits().add(engine.logits(batch)));
}

// load_model from a folder's name, as a user calls it.

#include <catch2/catch.hpp>
#include <filesystem>

#include "models/support/cases.hpp"
#include "models/support/engine.hpp"
#include "models/support/module_instances.hpp"
#include "ops/support/harness.hpp"

PERFT_TEST_MODULES(extern template, float)

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

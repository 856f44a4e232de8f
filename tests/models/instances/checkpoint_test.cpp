// What load_model opens before it builds, compiled once for this folder's tests.

#include <catch2/catch.hpp>

#include "models/support/cases.hpp"
#include "models/support/engine.hpp"
#include "perft/core/vec/bytes.hpp"
#include "perft/models/tensor_table.hpp"

namespace models_test {

Checkpoint open_checkpoint(const std::string& dir) {
  const perft::HubFolder folder = perft::HubFolder::open(dir);
  auto config =
      std::make_shared<const perft::ModelConfig>(perft::ModelConfig::parse(folder.config_json(), folder.config_path()));
  auto tensors = std::make_shared<const perft::CheckpointTensors>(perft::CheckpointTensors::open(folder, *config));
  return {config, tensors};
}

}  // namespace models_test

TEST_CASE("a random checkpoint opens, and its layouts hold the same numbers") {
  using namespace models_test;
  const io_test::TempFolder plain, fused, sharded;
  const auto a = write_random_checkpoint(small_olmoe(), {}, plain.path());
  const auto b = write_random_checkpoint(small_olmoe(), {.fused = true}, fused.path());
  const auto c = write_random_checkpoint(small_olmoe(), {.dtype = perft::DType::bf16, .shards = 3}, sharded.path());
  CHECK(a.weights == b.weights);
  CHECK(a.weights != c.weights);
  CHECK(sharded.files() == 5);
  const std::string name = "model.layers.1.mlp.experts.3.up_proj.weight";
  const auto first = [&](const io_test::TempFolder& folder) {
    const Checkpoint checkpoint = open_checkpoint(folder.path());
    const perft::TensorEntry& entry = checkpoint.tensors->at(name);
    float value = 0;
    perft::vec::convert_bytes(entry.data, entry.dtype, &value, 1);
    return static_cast<double>(value);
  };
  CHECK(first(plain) == a.weights.at(name)[0]);
  CHECK(first(fused) == b.weights.at(name)[0]);
  CHECK(first(sharded) == c.weights.at(name)[0]);
}

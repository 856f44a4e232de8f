// Instantiates Engine<bf16> for this folder's tests, and tries the one function that only error messages use.

#include <catch2/catch.hpp>
#include <limits>

#include "models/support/cases.hpp"
#include "models/support/engine_impl.hpp"

PERFT_TEST_MODULES(extern template, bf16)

template class models_test::Engine<perft::bf16>;

TEST_CASE("first_non_finite names the first layer that is not finite, in bf16") {
  using namespace models_test;
  const io_test::TempFolder folder;
  (void)write_random_checkpoint(small_olmoe(), {}, folder.path());
  Engine<perft::bf16> engine(folder.path());
  engine.train_everything();
  const perft::Batch batch = padded(random_batch({{0, 5}}, 5, 37, 1, 3), 37).batch;
  const auto spoil = [&](const std::string& name) {
    for (auto* parameter : engine.trained()) {
      if (parameter->name() == name) {
        for (auto& x : parameter->mutable_value().mutable_span())
          x = std::numeric_limits<perft::Param<perft::bf16>>::infinity();
      }
    }
    return engine.first_non_finite(batch);
  };
  CHECK_FALSE(engine.first_non_finite(batch).has_value());
  CHECK(spoil("model.norm.weight") == "the final norm");
  CHECK(spoil("model.layers.1.self_attn.o_proj.weight") == "layer 1");
  CHECK(spoil("model.layers.0.input_layernorm.weight") == "layer 0");
  CHECK(spoil("model.embed_tokens.weight") == "the embedding");
}

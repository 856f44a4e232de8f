// Adapters on whole models: what attaches and what does not, files of every method. Initial values:
// adapter_init_test.cpp.

#include <catch2/catch.hpp>
#include <map>
#include <string>
#include <vector>

#include "models/support/adapters.hpp"
#include "models/support/goldens.hpp"
#include "ops/support/harness.hpp"

using namespace models_test;
using harness::Bits;
using harness::error_text;
using perft::AdapterSpec;
using perft::Method;

namespace {

std::vector<AdapterSpec> every_method() {
  std::vector<AdapterSpec> all{
      spec_with(Method::kPerftS, 1, 0),
      spec_with(Method::kPerftD, 3, 0, perft::DeltaForm::kParallel),
      spec_with(Method::kPerftR, 4, 2),
      spec_with(Method::kPerftE, 6, 0, perft::DeltaForm::kParallel),
      lora_with({"q_proj", "k_proj", "v_proj", "o_proj", "gate", "gate_proj", "up_proj", "down_proj"}),
      lora_with({"down_proj"}),
  };
  all.push_back(spec_with(Method::kPerftR, 3, 1));
  all.back().ranks = {{1, 4, 2}, {3, 1, 5}};
  all.push_back(spec_with(Method::kPerftR, 4, 2));
  all.back().router_weights = perft::RouterWeights::kAuthorsOlmoe;
  all.back().dropout = 0.25;
  return all;
}

}  // namespace

TEST_CASE("an adapter of every method survives its folder bit for bit, and two saves are the same bytes") {
  const Model model;
  const perft::Batch batch = padded(random_batch({{0, 9}, {3, 9}}, 9, 37, 1, 3), 37).batch;
  for (const AdapterSpec& spec : every_method()) {
    INFO(perft::method_name(spec.method));
    const io_test::TempFolder one, two;
    Engine<float> engine(model.folder.path()), other(model.folder.path());
    engine.attach(spec);
    (void)randomise(engine.trained());
    save_adapter(engine, spec, one.path());
    const perft::AdapterConfig config = load_adapter(other, one.path());
    CHECK(config.spec.dropout == spec.dropout);
    CHECK(values_by_name(other.trained()) == values_by_name(engine.trained()));
    CHECK(Bits().add(other.logits(batch)) == Bits().add(engine.logits(batch)));
    save_adapter(other, config.spec, two.path());
    for (const char* name : {"adapter_model.safetensors", "adapter_config.json"}) {
      CHECK(io_test::read_bytes(one.path(name)) == io_test::read_bytes(two.path(name)));
    }
  }
}

TEST_CASE("attached parameters have the golden files' names and shapes, every variant") {
  for (const Variant& variant : golden_variants()) {
    const support::GoldenFile golden = load_golden(variant);
    const auto params = golden.with_prefix("param.");
    if (params.empty()) continue;
    INFO(variant.family << "/" << variant.name);
    Engine<float> engine((golden_family(variant) / "checkpoint").string());
    engine.attach(golden_spec(golden));
    CHECK(engine.trained().size() == params.size());
    for (const auto* parameter : engine.trained()) {
      INFO(parameter->name());
      REQUIRE(params.contains(parameter->name()));
      const perft::Tensor<float> stored = perft::as_stored(*parameter, parameter->value());
      const std::vector<std::size_t> shape(stored.shape().begin(), stored.shape().end());
      CHECK(shape == golden.at("param." + parameter->name()).shape);
    }
  }
}

TEST_CASE("ranks may differ by layer and expert") {
  const Model model;
  Engine<float> engine(model.folder.path());
  engine.attach(every_method()[6]);
  std::vector<std::int64_t> ranks;
  for (const auto* parameter : engine.trained()) {
    if (parameter->name().ends_with("lora_A.weight")) ranks.push_back(parameter->value().size(0));
  }
  CHECK(ranks == std::vector<std::int64_t>{1, 4, 2, 3, 1, 5});
}

TEST_CASE("what cannot be attached says why") {
  const Model model;
  const auto refusal = [&](const AdapterSpec& spec) {
    Engine<float> engine(model.folder.path());
    return error_text<perft::ValueError>([&] { engine.attach(spec); });
  };
  CHECK(refusal(spec_with(Method::kPerftE, 5, 0)) == "perft-e: 5 experts, expected the base's 6 (or leave it out)");
  AdapterSpec authors = spec_with(Method::kPerftR, 4, 3);
  CHECK(refusal(authors) == "nothing was thrown");
  authors.router_weights = perft::RouterWeights::kAuthorsOlmoe;
  CHECK(refusal(authors) ==
        "perft-r: router weights authors-olmoe take the base's first 3 weights, but its top-k is 2");
  CHECK(refusal(spec_with(Method::kPerftR, 2, 3)) == "adapter: top-k 3 of 2 experts, expected 1 … 2");
  CHECK(refusal(lora_with({"q_proj", "query"})).starts_with("adapter: LoRA target 'query', expected one of "));
}

TEST_CASE("what is refused leaves the model as it was: ranks that do not fit, a second adapter on a slot") {
  const Model model;
  const perft::Batch batch = padded(random_batch({{0, 9}, {3, 9}}, 9, 37, 1, 3), 37).batch;
  Engine<float> engine(model.folder.path());
  const auto refusal = [&](const AdapterSpec& spec) {
    const Bits before = Bits().add(engine.logits(batch));
    const std::size_t trained = engine.trained().size();
    const std::string text = error_text<perft::ValueError>([&] { engine.attach(spec); });
    CHECK(engine.trained().size() == trained);
    CHECK(Bits().add(engine.logits(batch)) == before);
    return text;
  };
  const auto with_ranks = [](AdapterSpec spec, std::vector<std::vector<std::int64_t>> ranks) {
    spec.ranks = std::move(ranks);
    return spec;
  };
  const AdapterSpec perft_r = spec_with(Method::kPerftR, 3, 1), attention = lora_with({"q_proj", "v_proj"});
  CHECK(refusal(with_ranks(perft_r, {{1, 2, 3}})) == "adapter: ranks of 1 layers, expected the model's 2");
  CHECK(refusal(with_ranks(perft_r, {{1, 2, 3}, {1, 2, 3}, {1, 2, 3}})) ==
        "adapter: ranks of 3 layers, expected the model's 2");
  CHECK(refusal(with_ranks(perft_r, {{1, 2, 3}, {1, 2}})) == "adapter: 2 ranks for model.layers.1.mlp, expected 3");
  CHECK(refusal(with_ranks(spec_with(Method::kPerftE, 0, 0), {{1, 2, 3}, {1, 2, 3}})) ==
        "adapter: 3 ranks for model.layers.0.mlp, expected 6");
  CHECK(refusal(with_ranks(spec_with(Method::kPerftS, 1, 0), {{1}, {}})) ==
        "adapter: 0 ranks for model.layers.1.mlp, expected 1");
  CHECK(refusal(with_ranks(attention, {{2}, {}})) ==
        "adapter: 0 ranks for model.layers.1.self_attn.q_proj, expected 1");
  CHECK(refusal(with_ranks(lora_with({"up_proj"}), {{1, 1, 1, 1, 1, 1}, {1}})) ==
        "adapter: 1 ranks for model.layers.1.mlp.experts, expected 6");

  const auto taken = [](const std::string& path) {
    return "adapter: " + path +
           " carries an adapter already, expected none; detach it first, or name all targets at once";
  };
  engine.attach(attention);
  engine.attach(lora_with({"gate_proj"}));
  engine.attach(perft_r);  // LoRA and PERFT sit on different slots
  (void)randomise(engine.trained());
  CHECK(refusal(lora_with({"k_proj", "v_proj"})) == taken("model.layers.0.self_attn.v_proj"));
  CHECK(refusal(lora_with({"down_proj"})) == taken("model.layers.0.mlp.experts"));
  CHECK(refusal(spec_with(Method::kPerftS, 1, 0)) == taken("model.layers.0.mlp"));
  engine.detach();
  REQUIRE_NOTHROW(engine.attach(attention));
}

TEST_CASE("a folder that does not fit its model is refused by file") {
  const Model olmoe;
  const Model mixtral(small_mixtral());
  const io_test::TempFolder folder;
  Engine<float> engine(olmoe.folder.path());
  engine.attach(spec_with(Method::kPerftS, 1, 0));
  save_adapter(engine, spec_with(Method::kPerftS, 1, 0), folder.path());
  Engine<float> other(mixtral.folder.path());
  CHECK(error_text<perft::IoError>([&] { (void)load_adapter(other, folder.path()); }) ==
        folder.path("adapter_config.json") + R"(: base_model_type is "olmoe", expected the model's "mixtral")");
  // What only attaching finds: the configuration makes sense, but not for this model.
  AdapterSpec authors = spec_with(Method::kPerftR, 4, 3);
  authors.router_weights = perft::RouterWeights::kAuthorsOlmoe;
  save_adapter(engine, authors, folder.path());
  Engine<float> second(olmoe.folder.path());
  CHECK(error_text<perft::IoError>([&] { (void)load_adapter(second, folder.path()); }) ==
        folder.path("adapter_config.json") +
            ": perft-r: router weights authors-olmoe take the base's first 3 weights, but its top-k is 2");
  // The configuration promises another adapter than the file holds.
  save_adapter(engine, spec_with(Method::kPerftD, 2, 0), folder.path());
  Engine<float> third(olmoe.folder.path());
  CHECK(error_text<perft::IoError>([&] { (void)load_adapter(third, folder.path()); }) ==
        folder.path("adapter_model.safetensors") +
            ": tensor 'model.layers.0.mlp.perft.experts.1.lora_A.weight' is missing; check adapter_config.json against "
            "the file");
  for (const auto* parameter : third.trained()) {  // nothing was drawn for what a file should have filled
    if (parameter->name().find(".layers.1.") == std::string::npos) continue;
    for (const float x : parameter->value().span()) REQUIRE(x == 0);
  }
}

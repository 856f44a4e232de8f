// The library in double against the naive reference on random checkpoints that no golden file covers: 1e-10.

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "models/support/cases.hpp"
#include "models/support/engine.hpp"
#include "support/close.hpp"

using namespace models_test;
using support::close;
using Method = reference::RefAdapter::Method;

namespace {

constexpr double kExact = 1e-10;

struct Case {
  const char* what;
  std::string config;
  Layout layout;
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all{
      {"OLMoE, renormalised, clipped, tied, two kv heads",
       small_olmoe(R"({"norm_topk_prob": true, "num_experts_per_tok": 3, "clip_qkv": 0.8, "tie_word_embeddings": true,
                       "num_key_value_heads": 2})"),
       {}},
      {"OLMoE, explicit head_dim 8 of D 24, bf16 in 3 files, no padding id",
       small_olmoe(R"({"head_dim": 8, "num_key_value_heads": 1, "pad_token_id": null, "rope_theta": 500.0})"),
       {.dtype = perft::DType::bf16, .shards = 3}},
      {"OLMoE, fused experts, renormalised top-1",
       small_olmoe(R"({"norm_topk_prob": true, "num_experts_per_tok": 1, "num_hidden_layers": 3})"),
       {.fused = true}},
      {"Mixtral, query groups of 3, sliding window 3", small_mixtral(R"({"sliding_window": 3})"), {}},
      {"Mixtral, explicit head_dim 10 of D 24, fused experts in bf16, in 2 files, tied, padding id",
       small_mixtral(R"({"head_dim": 10, "tie_word_embeddings": true, "pad_token_id": 2, "rms_norm_eps": 0.01})"),
       {.dtype = perft::DType::bf16, .shards = 2, .fused = true}},
      {"Mixtral, all experts chosen, window 1, one layer, many files",
       small_mixtral(R"({"num_local_experts": 3, "num_experts_per_tok": 3, "sliding_window": 1,
                         "num_hidden_layers": 1, "num_key_value_heads": 6})"),
       {.shards = 5}},
  };
  return all;
}

/// Padding on either side, on both, on none, and a row without tokens.
reference::RefBatch mixed_batch(const reference::RefConfig& c, std::uint64_t seed) {
  return random_batch({{0, 9}, {4, 9}, {0, 5}, {2, 7}, {8, 9}, {0, 0}}, 9, static_cast<std::int64_t>(c.vocab),
                      c.padding_idx.value_or(0), seed);
}

/// Logits, losses and all gradients of the engine's trainable parameters against the reference.
void compare(Engine<double>& engine, reference::Problem problem) {
  for (const bool hf : {true, false}) {
    INFO((hf ? "hf" : "ignore"));
    problem.pad_rows = hf ? reference::PadRows::hf : reference::PadRows::ignore;
    const auto batch = padded(problem.batch, static_cast<std::int64_t>(problem.config.vocab),
                              hf ? perft::PadRows::hf : perft::PadRows::ignore);
    const auto expected = reference_losses(problem);
    CHECK(close(spread(engine.logits(batch.batch), batch.logit_source), expected.logits, {.rel_to_max = kExact}));
    engine.clear_gradients();
    const perft::Losses losses = engine.accumulate(batch.batch, whole_batch(batch.batch, problem.config.aux_coef));
    CHECK(close(losses.lm, hf ? expected.lm : expected.lm_real_rows, {.rel_to_max = kExact}));
    CHECK(close(losses.aux, expected.aux_base, {.rel_to_max = kExact}));
    CHECK(close(losses.adapter_aux, expected.aux_peft, {.rel_to_max = kExact}));
    DirectionalDerivatives derivatives(problem);
    const auto parameters = engine.trained();
    for (std::size_t i = 0; i < parameters.size(); i += hf ? 1 : 7) {  // the modes differ in lm's targets alone
      const auto& parameter = *parameters[i];
      INFO(parameter.name());
      REQUIRE(parameter.gradient().defined());
      CHECK(is_gradient(derivatives, parameter.name(), stored_gradient(parameter), kExact));
    }
  }
}

struct Adapter {
  const char* what;
  reference::RefAdapter adapter;
  std::int64_t rank;
  std::vector<std::string> targets = {};
};

}  // namespace

TEST_CASE("double: full fine-tuning of random checkpoints is the reference's") {
  for (const Case& c : cases()) {
    INFO(c.what);
    const io_test::TempFolder folder;
    const auto checkpoint = write_random_checkpoint(c.config, c.layout, folder.path());
    Engine<double> engine(folder.path());
    engine.train_everything();
    // Tied: one parameter, with the head's gradient and the embedding's in it.
    CHECK(engine.trained().size() == checkpoint.weights.size());
    compare(engine, {checkpoint.config, checkpoint.weights, {}, {}, mixed_batch(checkpoint.config, 11)});
  }
}

TEST_CASE("double: every adapter on random checkpoints is the reference's") {
  const std::vector<Adapter> adapters{
      {"perft-s parallel", {.method = Method::perft_s, .parallel = true, .experts = 1}, 3},
      {"perft-d 3", {.method = Method::perft_d, .scaling = 1.5, .experts = 3}, 2},
      {"perft-r 5-2", {.method = Method::perft_r, .scaling = 0.75, .experts = 5, .top_k = 2}, 4},
      {"perft-r 3-1 parallel", {.method = Method::perft_r, .parallel = true, .experts = 3, .top_k = 1}, 2},
      {"perft-r 4-1, the base's weights",
       {.method = Method::perft_r, .experts = 4, .top_k = 1, .base_weights = true},
       2},
      {"perft-e", {.method = Method::perft_e}, 2},
      {"lora everywhere",
       {.method = Method::lora, .scaling = 1.25},
       3,
       {"q_proj", "k_proj", "v_proj", "o_proj", "gate", "gate_proj", "up_proj", "down_proj"}},
      {"lora on up_proj alone", {.method = Method::lora}, 2, {"up_proj"}},
  };
  std::uint64_t seed = 20;
  std::size_t turn = 0;
  for (const Case& c : cases()) {
    const io_test::TempFolder folder;
    const auto checkpoint = write_random_checkpoint(c.config, c.layout, folder.path());
    for (std::size_t a = turn++ % 2; a < adapters.size(); a += 2) {  // half of them on each
      Adapter adapter = adapters[a];
      INFO(c.what << ": " << adapter.what);
      if (adapter.adapter.method == Method::perft_e) adapter.adapter.experts = checkpoint.config.experts;
      Engine<double> engine(folder.path());
      engine.attach(spec_of(adapter.adapter, adapter.rank, adapter.targets));
      const auto params = randomise(engine.trained());
      compare(engine,
              {checkpoint.config, checkpoint.weights, adapter.adapter, params, mixed_batch(checkpoint.config, seed++)});
    }
  }
}

// What must hold to the bit: adapters that add nothing, detaching, any number of threads, rows alone and in a batch.

#include <catch2/catch.hpp>
#include <string>
#include <utility>
#include <vector>

#include "models/support/cases.hpp"
#include "models/support/engine.hpp"
#include "ops/support/harness.hpp"
#include "support/close.hpp"

using namespace models_test;
using harness::Bits;

namespace {

std::vector<perft::AdapterSpec> adapters(double dropout = 0) {
  using perft::Method;
  std::vector<perft::AdapterSpec> all;
  for (const auto delta : {perft::DeltaForm::kLora, perft::DeltaForm::kParallel}) {
    for (const Method method : {Method::kPerftS, Method::kPerftD, Method::kPerftR, Method::kPerftE}) {
      perft::AdapterSpec spec;
      spec.method = method;
      spec.delta = delta;
      spec.rank = 4;
      spec.alpha = 8;
      spec.dropout = dropout;
      spec.experts = method == Method::kPerftS ? 1 : method == Method::kPerftE ? 0 : 5;
      spec.top_k = method == Method::kPerftR ? 2 : 0;
      all.push_back(spec);
    }
  }
  all.push_back(all[2]);
  all.back().router_weights = perft::RouterWeights::kAuthorsOlmoe;
  for (const std::vector<std::string>& targets : {std::vector<std::string>{"q_proj", "k_proj", "v_proj", "o_proj"},
                                                  {"gate"},
                                                  {"gate_proj", "up_proj", "down_proj"}}) {
    perft::AdapterSpec spec;
    spec.method = Method::kLora;
    spec.rank = 3;
    spec.alpha = 6;
    spec.dropout = dropout;
    spec.targets = targets;
    all.push_back(spec);
  }
  return all;
}

std::string title(const perft::AdapterSpec& spec) {
  return std::string(perft::method_name(spec.method)) + (spec.delta == perft::DeltaForm::kLora ? "" : " parallel") +
         (spec.router_weights == perft::RouterWeights::kOwn ? "" : " authors-olmoe") +
         (spec.targets.empty() ? "" : " " + spec.targets[0]);
}

/// B (or W2) of every low-rank expert becomes zero.
template <class P>
void clear_b(const std::vector<perft::Parameter<P>*>& parameters) {
  for (perft::Parameter<P>* parameter : parameters) {
    if (parameter->name().ends_with("lora_B.weight") || parameter->name().ends_with("w2.weight")) {
      for (P& x : parameter->mutable_value().mutable_span()) x = 0;
    }
  }
}

/// Everything a step computes: logits, losses, all gradients.
template <class C>
Bits step_bits(Engine<C>& engine, const perft::Batch& batch, const perft::LossOptions& options) {
  Bits bits;
  bits.add(engine.logits(batch));
  engine.clear_gradients();
  const perft::Losses losses = engine.accumulate(batch, options);
  bits.add(harness::tensor<double>({losses.lm, losses.aux, losses.adapter_aux}, {3}));
  for (const auto* parameter : engine.trained()) bits.add(parameter->gradient());
  return bits;
}

reference::RefBatch some_rows() {
  return random_batch({{0, 12}, {5, 12}, {0, 7}, {11, 12}, {3, 9}}, 12, 37, 1, 31);
}

}  // namespace

TEMPLATE_TEST_CASE("an adapter with B = 0 gives the base's logits bit for bit, and so does detaching", "", float,
                   perft::bf16, double) {
  for (const std::string& config : {small_olmoe(), small_mixtral()}) {
    const io_test::TempFolder folder;
    (void)write_random_checkpoint(config, {.dtype = perft::DType::bf16}, folder.path());
    Engine<TestType> engine(folder.path());
    const perft::Batch batch = padded(some_rows(), 37).batch;
    const Bits base = Bits().add(engine.logits(batch));
    for (const perft::AdapterSpec& spec : adapters()) {
      INFO(title(spec));
      engine.attach(spec);
      (void)randomise(engine.trained());
      CHECK_FALSE(Bits().add(engine.logits(batch)) == base);
      clear_b(engine.trained());
      CHECK(Bits().add(engine.logits(batch)) == base);
      engine.detach();
      CHECK(engine.trained().empty());
      CHECK(Bits().add(engine.logits(batch)) == base);
    }
    // Several adapters at once, each on its own slots, come off together.
    const auto all = adapters();
    for (const std::size_t i : {std::size_t{2}, all.size() - 3, all.size() - 2, all.size() - 1}) engine.attach(all[i]);
    (void)randomise(engine.trained());
    CHECK_FALSE(Bits().add(engine.logits(batch)) == base);
    engine.detach();
    CHECK(Bits().add(engine.logits(batch)) == base);
  }
}

TEMPLATE_TEST_CASE("logits, losses and gradients have the same bits for 1, 2 and 3 threads", "", float, perft::bf16) {
  std::vector<RowExtent> extents;
  for (std::size_t r = 0; r < 17; ++r) extents.push_back({0, 9 + 7 * r % 31});  // enough rows for several tasks an op
  const perft::Batch batch = padded(random_batch(extents, 40, 37, 1, 32), 37, perft::PadRows::ignore).batch;
  perft::LossOptions options = whole_batch(batch, 0.05);
  options.training = true;
  for (const std::string& config : {small_olmoe(), small_mixtral()}) {
    const io_test::TempFolder folder;
    (void)write_random_checkpoint(config, {.dtype = perft::DType::bf16}, folder.path());
    for (const perft::AdapterSpec& spec : adapters(0.2)) {
      INFO(title(spec));
      Engine<TestType> engine(folder.path());
      engine.attach(spec);
      (void)randomise(engine.trained());
      harness::check_same_bits_for_any_threads([&] { return step_bits(engine, batch, options); });
    }
    Engine<TestType> engine(folder.path());
    engine.train_everything();
    harness::check_same_bits_for_any_threads([&] { return step_bits(engine, batch, options); });
  }
}

TEMPLATE_TEST_CASE("a row's logits are bit-equal alone and in any batch", "", float, double) {
  for (const std::string& config :
       {small_olmoe(R"({"norm_topk_prob": true})"), small_mixtral(R"({"sliding_window": 4})")}) {
    const io_test::TempFolder folder;
    (void)write_random_checkpoint(config, {}, folder.path());
    Engine<TestType> engine(folder.path());
    engine.attach(adapters()[2]);
    (void)randomise(engine.trained());
    const auto rows = rows_of(random_batch({{0, 33}, {0, 1}, {0, 8}, {0, 17}, {0, 2}, {0, 30}, {0, 5}}, 33, 37, 1, 33));
    std::vector<Bits> alone;
    for (const perft::EncodedRow& row : rows) {
      alone.push_back(Bits().add(engine.logits(perft::ragged_batch({&row, 1}, 0, perft::PadRows::ignore, 0, 1))));
    }
    for (const std::vector<std::size_t>& order : {std::vector<std::size_t>{0, 1, 2, 3, 4, 5, 6},
                                                  {6, 5, 4, 3, 2, 1, 0},
                                                  {3, 0},
                                                  {1, 4, 1, 1, 5},
                                                  {2, 6, 0, 4}}) {
      std::vector<perft::EncodedRow> picked;
      for (const std::size_t r : order) picked.push_back(rows[r]);
      const auto logits = engine.logits(perft::ragged_batch(picked, 0, perft::PadRows::ignore, 0, 1));
      std::int64_t at = 0;
      for (const std::size_t r : order) {
        const auto length = static_cast<std::int64_t>(rows[r].ids.size());
        CHECK(Bits().add(logits.slice(0, at, at + length).clone()) == alone[r]);
        at += length;
      }
    }
  }
}

TEMPLATE_TEST_CASE("recomputing layers or hidden states changes no bit of losses and gradients, dropout on", "", float,
                   perft::bf16) {
  const io_test::TempFolder folder;
  (void)write_random_checkpoint(small_olmoe(), {}, folder.path());
  const perft::Batch batch = padded(some_rows(), 37).batch;
  for (const perft::AdapterSpec& spec : adapters(0.3)) {
    INFO(title(spec));
    Engine<TestType> engine(folder.path());
    engine.attach(spec);
    (void)randomise(engine.trained());
    perft::LossOptions options = whole_batch(batch, 0.05);
    options.training = true;
    options.seed = 5;
    options.step = 3;
    const Bits saved = step_bits(engine, batch, options);
    for (const bool layers : {false, true}) {
      for (const auto hidden : {perft::HiddenPolicy::kSave, perft::HiddenPolicy::kRecompute}) {
        options.recompute_layers = layers;
        options.hidden = hidden;
        CHECK(step_bits(engine, batch, options) == saved);
      }
    }
    options.step = 4;  // dropout is really on
    CHECK_FALSE(step_bits(engine, batch, options) == saved);
  }
  Engine<TestType> engine(folder.path());
  engine.train_everything();
  perft::LossOptions options = whole_batch(batch, 0.05);
  const Bits saved = step_bits(engine, batch, options);
  options.recompute_layers = true;
  options.hidden = perft::HiddenPolicy::kRecompute;
  CHECK(step_bits(engine, batch, options) == saved);
}

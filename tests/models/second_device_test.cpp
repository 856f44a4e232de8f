// Whole models on a second device: nothing above the ops names Cpu, so a step gives the bits it gives there.

#include <catch2/catch.hpp>
#include <string>

#include "models/support/cases.hpp"
#include "models/support/module_instances.hpp"
#include "ops/support/harness.hpp"
#include "perft/models/load_model.hpp"
#include "perft/peft/attach.hpp"
#include "perft/train/adamw.hpp"
#include "perft/train/loss.hpp"
#include "support/offset_device.hpp"

PERFT_TEST_MODULES(extern template, float)

using namespace models_test;

namespace {

template <class T, class Device>
perft::Tensor<T> on_host(const perft::Tensor<T, Device>& x) {
  return to_host(x);
}

/// Two AdamW steps of what `attach` makes trainable: the logits after them, every gradient and every trained value.
template <class Device, class Attach>
harness::Bits two_steps(const std::string& folder, const perft::Batch& batch, bool recompute, Attach attach) {
  using C = float;
  const auto model = perft::load_model<C, Device>(folder);
  attach(*model);
  const auto parameters = perft::trainable_parameters<C, Device>(*model);
  REQUIRE(!parameters.empty());
  perft::AdamW<C, Device> adam(parameters);
  harness::Bits bits;
  for (std::uint64_t step = 1; step <= 2; ++step) {
    for (auto* parameter : parameters) parameter->clear_gradient();
    perft::LossOptions options = whole_batch(batch, 0.05);
    options.training = true;
    options.step = step;
    options.recompute_layers = recompute;
    options.hidden = recompute ? perft::HiddenPolicy::kRecompute : perft::HiddenPolicy::kSave;
    const perft::Losses losses = perft::accumulate_gradients<C, Device>(*model, batch, options);
    bits.add(harness::tensor<double>({losses.lm, losses.aux, losses.adapter_aux}, {3}));
    const double norm = perft::gradient_norm(parameters);
    adam.step(0.01, perft::clip_factor(norm, 1.0));
  }
  for (const auto* parameter : parameters) {
    REQUIRE(parameter->gradient().defined());
    bits.add(on_host(parameter->gradient()));
    bits.add(on_host(parameter->value()));
  }
  auto context = model->context(batch);
  bits.add(on_host(model->logits(model->forward(batch, context).value())));
  CHECK(!model->first_non_finite(batch));
  return bits;
}

template <class Attach>
void check_same_on_both(const std::string& config, bool recompute, Attach attach) {
  const io_test::TempFolder folder;
  (void)write_random_checkpoint(config, {}, folder.path());
  const perft::Batch batch = padded(random_batch({{0, 9}, {3, 9}}, 9, 37, 1, 3), 37).batch;
  const int before = toy::copies;
  const auto device = two_steps<toy::Offset>(folder.path(), batch, recompute, attach);
  CHECK(toy::copies > before);
  CHECK(device == two_steps<perft::Cpu>(folder.path(), batch, recompute, attach));
}

struct AttachSpecs {
  std::vector<perft::AdapterSpec> specs;

  template <class Device>
  void operator()(perft::CausalLm<float, Device>& model) const {
    for (const perft::AdapterSpec& spec : specs) perft::attach<float, Device>(model, spec, 0.02, 1);
  }
};

struct TrainAll {
  template <class Device>
  void operator()(perft::CausalLm<float, Device>& model) const {
    perft::train_everything<float, Device>(model);
  }
};

}  // namespace

TEST_CASE("second device: PERFT-R beside LoRA on attention and on the experts, with dropout and recomputation") {
  perft::AdapterSpec perft_r;
  perft_r.method = perft::Method::kPerftR;
  perft_r.rank = 3;
  perft_r.experts = 4;
  perft_r.top_k = 2;
  perft_r.router_weights = perft::RouterWeights::kAuthorsOlmoe;
  perft::AdapterSpec lora;
  lora.method = perft::Method::kLora;
  lora.rank = 2;
  lora.dropout = 0.25;
  lora.targets = {"q_proj", "gate", "gate_proj", "down_proj"};
  check_same_on_both(small_olmoe(), true, AttachSpecs{{lora, perft_r}});
}

TEST_CASE("second device: full fine-tuning of Mixtral, tied embeddings too") {
  check_same_on_both(small_mixtral(R"({"num_hidden_layers": 1})"), false, TrainAll{});
  check_same_on_both(small_olmoe(R"({"num_hidden_layers": 1, "tie_word_embeddings": true})"), false, TrainAll{});
}

#pragma once
// The definition of Engine; included by one file per compute type.

#include "models/support/engine.hpp"
#include "models/support/module_instances.hpp"
#include "perft/nn/parameter_list.hpp"
#include "perft/train/loss.hpp"

namespace models_test {

template <perft::ComputeType C>
Engine<C>::Engine(const std::string& model_dir) {
  const Checkpoint checkpoint = open_checkpoint(model_dir);
  model_ = perft::build_model<C>(*checkpoint.config, *checkpoint.tensors);
}

template <perft::ComputeType C>
Engine<C>::~Engine() = default;

template <perft::ComputeType C>
perft::CausalLm<C>& Engine<C>::model() {
  return *model_;
}

template <perft::ComputeType C>
const perft::ModelConfig& Engine<C>::config() const {
  return model_->config;
}

template <perft::ComputeType C>
perft::BaseFacts Engine<C>::facts() const {
  const perft::ModelConfig& c = config();
  return {std::string(perft::family_name(c.family)), c.hidden_size, c.num_hidden_layers, c.vocab_size, c.num_experts};
}

template <perft::ComputeType C>
void Engine<C>::attach(const perft::AdapterSpec& spec, std::uint64_t seed, double initializer_range) {
  perft::attach<C>(*model_, spec, initializer_range, seed);
}

template <perft::ComputeType C>
void Engine<C>::detach() {
  perft::detach<C>(*model_);
}

template <perft::ComputeType C>
void Engine<C>::train_everything() {
  perft::train_everything<C>(*model_);
}

template <perft::ComputeType C>
auto Engine<C>::trained() -> std::vector<perft::Parameter<P>*> {
  return perft::trainable_parameters<C>(*model_);
}

template <perft::ComputeType C>
void Engine<C>::clear_gradients() {
  for (perft::Parameter<P>* parameter : trained()) {
    parameter->clear_gradient();
  }
}

template <perft::ComputeType C>
auto Engine<C>::logits(const perft::Batch& batch) -> perft::Tensor<P> {
  perft::NoRecording pause;
  perft::ForwardContext<C> context = model_->context(batch);
  return model_->logits(model_->forward(batch, context).value());
}

template <perft::ComputeType C>
perft::Losses Engine<C>::evaluate(const perft::Batch& batch, const perft::LossOptions& options) {
  return perft::evaluate_loss<C>(*model_, batch, options);
}

template <perft::ComputeType C>
perft::Losses Engine<C>::accumulate(const perft::Batch& batch, const perft::LossOptions& options) {
  return perft::accumulate_gradients<C>(*model_, batch, options);
}

template <perft::ComputeType C>
std::vector<RecordedNode> Engine<C>::recorded(const perft::Batch& batch, const perft::LossOptions& options) {
  perft::Tape tape;
  perft::ForwardContext<C> context = perft::detail::loss_context<C>(*model_, batch, options);
  perft::Recording recording(tape);
  const auto h = model_->forward(batch, context);
  (void)perft::cross_entropy(h, model_->head(), {batch.loss_rows, batch.targets}, options.lm_scale);
  std::vector<RecordedNode> nodes;
  for (std::size_t i = 0; i < tape.size(); ++i) {
    nodes.push_back({std::string(tape.node(i).name()), tape.node(i).saved_bytes()});
  }
  return nodes;
}

template <perft::ComputeType C>
std::optional<std::string> Engine<C>::first_non_finite(const perft::Batch& batch) {
  return model_->first_non_finite(batch);
}

}  // namespace models_test

#pragma once
// A model in training, for one compute type.

#include <memory>       // the model
#include <string>       // paths
#include <type_traits>  // what is rounded
#include <vector>       // tensors

#include "engine_commands.hpp"
#include "finetune_options.hpp"
#include "full_model.hpp"
#include "perft/models/load_model.hpp"
#include "perft/peft/adapter_io.hpp"
#include "perft/train/lost_updates.hpp"
#include "training_state.hpp"

namespace perft::cli {

template <ComputeType C>
class Session final : public FinetuneSession {
 public:
  using P = Param<C>;

  Session(const ModelFiles& files, const FinetuneOptions& options, const MicroBatchPlan& plan)
      : files_(files), options_(options), model_(build_model<C>(files.config, files.tensors)) {
    if (full()) {
      train_everything<C>(*model_);
    } else {
      spec_ = adapter_spec(options);
      attach<C>(*model_, spec_, files.config.initializer_range, static_cast<std::uint64_t>(options.seed));
    }
    trainer_ = std::make_unique<Trainer<C, CausalLm<C>>>(*model_, trainable_parameters<C>(*model_),
                                                         trainer_options(options, plan));
    round_routers();
  }

  std::vector<TrainedTensor> trained_tensors() const override {
    std::vector<TrainedTensor> list;
    for (const Parameter<P>* parameter : trainer_->optimizer().parameters()) {
      list.push_back({parameter->name(), parameter->value().numel()});
    }
    return list;
  }

  StepResult step(std::span<const EncodedRow> rows, std::uint64_t step, double lr) override {
    lost_updates_.before(trainer_->optimizer());
    StepResult result = trainer_->step(rows, step, lr);
    round_routers();
    if (lr > 0) {
      lost_updates_.after(trainer_->optimizer());
    }
    return result;
  }

  LostShare take_lost_updates() override { return lost_updates_.take(trainer_->optimizer()); }

  ValidationResult validate(std::span<const EncodedRow> rows, std::int64_t batch_rows,
                            const std::function<bool()>& stop) override {
    return trainer_->validate(rows, batch_rows, stop);
  }

  std::optional<std::string> first_non_finite(const Batch& batch) override { return model_->first_non_finite(batch); }

  void save(const std::string& dir, const RunProgress& progress) override {
    if (full()) {
      save_full_model<C>(*model_, files_.tensors, files_.dir, dir);
    } else {
      save_adapter<C>(*model_, spec_, base_facts(files_.config), dir);
    }
    save_training_state(dir + "/training_state.safetensors", progress, trainer_->optimizer(), rounded_when_saved());
  }

  RunProgress load(const std::string& dir, std::int64_t step) override {
    if (!rounded_when_saved()) {
      load_adapter_weights<C>(*model_, dir + "/adapter_model.safetensors");
    }
    return load_training_state(dir + "/training_state.safetensors", step, trainer_->optimizer(), rounded_when_saved());
  }

 private:
  bool full() const { return options_.method == Method::full; }

  /// Whether a checkpoint's weights are not the parameters themselves: F32 of doubles, a base's bf16 of fp32 masters.
  bool rounded_when_saved() const { return std::is_same_v<P, double> || full(); }

  /// The authors' router is bf16, moments included: what a step changes by less than half an ulp is lost.
  void round_routers() {
    if (options_.router_dtype != RouterDtype::bf16) {
      return;
    }
    auto& optimizer = trainer_->optimizer();
    for (std::size_t i = 0; i < optimizer.parameters().size(); ++i) {
      Parameter<P>& parameter = *optimizer.parameters()[i];
      if (parameter.name().ends_with(".perft.router.weight")) {
        auto& state = optimizer.state()[i];
        for (Tensor<P>* tensor : {&parameter.mutable_value(), &state.m, &state.v}) {
          if (tensor->defined()) {
            vec::round_to_bf16(tensor->mutable_data(), tensor->numel());
          }
        }
      }
    }
  }

  const ModelFiles& files_;
  const FinetuneOptions& options_;
  std::unique_ptr<CausalLm<C>> model_;
  AdapterSpec spec_;
  std::unique_ptr<Trainer<C, CausalLm<C>>> trainer_;
  LostUpdates<P> lost_updates_;
};

template <ComputeType C>
std::unique_ptr<FinetuneSession> make_session(const ModelFiles& files, const FinetuneOptions& options,
                                              const MicroBatchPlan& plan) {
  return std::make_unique<Session<C>>(files, options, plan);
}

}  // namespace perft::cli

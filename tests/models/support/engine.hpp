#pragma once
// A model with its adapter behind a class that is instantiated once per compute type (engine_impl.hpp), so that files
// which only use it compile in seconds.

#include <cstdint>   // seeds
#include <memory>    // the model
#include <optional>  // no fault found
#include <string>    // folders
#include <vector>    // parameters

#include "perft/autograd/parameter.hpp"
#include "perft/autograd/variable.hpp"
#include "perft/core/batch.hpp"
#include "perft/models/causal_lm_fwd.hpp"
#include "perft/models/config.hpp"
#include "perft/peft/adapter_config.hpp"
#include "perft/train/trainer.hpp"

namespace perft::inline PERFT_ABI {

class CheckpointTensors;

}  // namespace perft::inline PERFT_ABI

namespace models_test {

/// What load_model opens before it builds, behind pointers: reading JSON takes long to compile.
struct Checkpoint {
  std::shared_ptr<const perft::ModelConfig> config;
  std::shared_ptr<const perft::CheckpointTensors> tensors;
};

Checkpoint open_checkpoint(const std::string& dir);

/// One recorded node: Node::name() and Node::saved_bytes().
struct RecordedNode {
  std::string name;
  std::size_t bytes = 0;

  bool operator==(const RecordedNode&) const = default;
};

template <perft::ComputeType C>
class Engine {
 public:
  using P = perft::Param<C>;

  explicit Engine(const std::string& model_dir);
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  ~Engine();

  perft::CausalLm<C>& model();
  const perft::ModelConfig& config() const;
  perft::BaseFacts facts() const;

  void attach(const perft::AdapterSpec& spec, std::uint64_t seed = 1, double initializer_range = 0.02);
  void detach();
  void train_everything();

  /// The trainable parameters, in the order of the model's visit().
  std::vector<perft::Parameter<P>*> trained();
  void clear_gradients();

  /// [T, V]: of each token of the batch.
  perft::Tensor<P> logits(const perft::Batch& batch);
  perft::Losses evaluate(const perft::Batch& batch, const perft::LossOptions& options);
  perft::Losses accumulate(const perft::Batch& batch, const perft::LossOptions& options);

  /// The tape of a forward pass with all losses, in the order recorded.
  std::vector<RecordedNode> recorded(const perft::Batch& batch, const perft::LossOptions& options);

  std::optional<std::string> first_non_finite(const perft::Batch& batch);

 private:
  std::unique_ptr<perft::CausalLm<C>> model_;
};

extern template class Engine<float>;
extern template class Engine<double>;
extern template class Engine<perft::bf16>;

// Trainer::step of a fresh trainer.
perft::StepResult train_step(Engine<float>& engine, const std::vector<perft::EncodedRow>& rows,
                             const perft::TrainerOptions& options, std::uint64_t step, double lr);
perft::StepResult train_step(Engine<double>& engine, const std::vector<perft::EncodedRow>& rows,
                             const perft::TrainerOptions& options, std::uint64_t step, double lr);

// Adapter folders, in float.
perft::AdapterConfig load_adapter(Engine<float>& engine, const std::string& dir);
void load_adapter_weights(Engine<float>& engine, const std::string& file);
void save_adapter(Engine<float>& engine, const perft::AdapterSpec& spec, const std::string& dir);

}  // namespace models_test

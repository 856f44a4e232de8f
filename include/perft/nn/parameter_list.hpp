#pragma once
// The parameters of a model, trainable ones and adapters', in the order its modules list them.

#include <vector>  // the list

#include "perft/nn/slots.hpp"

namespace perft::inline PERFT_ABI {

namespace detail {

template <ComputeType C, class Device = Cpu>
class CollectTrainable final : public Visitor<C, Device> {
 public:
  std::vector<Parameter<Param<C>, Device>*> found;

  void weight(Weight<Param<C>, Device>& weight) override {
    if (Parameter<Param<C>, Device>* parameter = weight.trained()) {
      found.push_back(parameter);
    }
  }

  void parameter(Parameter<Param<C>, Device>& parameter) override {
    if (parameter.trainable()) {
      found.push_back(&parameter);
    }
  }
};

template <ComputeType C, class Device = Cpu>
class CollectAdapter final : public Visitor<C, Device> {
 public:
  std::vector<Parameter<Param<C>, Device>*> found;

  void adapter_weight(Weight<Param<C>, Device>& weight) override { found.push_back(weight.parameter()); }

  void adapter_parameter(Parameter<Param<C>, Device>& parameter) override { found.push_back(&parameter); }
};

template <ComputeType C, class Device = Cpu>
class TrainEverything final : public Visitor<C, Device> {
 public:
  void weight(Weight<Param<C>, Device>& weight) override { weight.make_trainable(); }

  void parameter(Parameter<Param<C>, Device>& parameter) override { parameter.set_trainable(true); }
};

}  // namespace detail

/// Pointers stay valid while the model's slots are not replaced.
template <ComputeType C, class Device = Cpu, class Model>
std::vector<Parameter<Param<C>, Device>*> trainable_parameters(Model& model) {
  detail::CollectTrainable<C, Device> visitor;
  model.visit(visitor);
  return std::move(visitor.found);
}

/// The parameters that belong to the attached adapters, trainable or not: what adapter files hold. Pointers stay valid
/// while the model's slots are not replaced.
template <ComputeType C, class Device = Cpu, class Model>
std::vector<Parameter<Param<C>, Device>*> adapter_parameters(Model& model) {
  detail::CollectAdapter<C, Device> visitor;
  model.visit(visitor);
  return std::move(visitor.found);
}

/// Full fine-tuning: every matrix becomes an owned master in Param<C> (widened exactly), every vector trainable.
template <ComputeType C, class Device = Cpu, class Model>
void train_everything(Model& model) {
  detail::TrainEverything<C, Device> visitor;
  model.visit(visitor);
}

/// Value (or gradient) of a parameter as files hold it, on the host: row-major, transposed back if it is stored so.
template <class P, class ParameterDevice, class Device>
Tensor<P> as_stored(const Parameter<P, ParameterDevice>& parameter, const Tensor<P, Device>& tensor) {
  Tensor<P> value = to_host(tensor);
  return parameter.stored_transposed() ? value.transpose(0, 1).clone() : value;
}

}  // namespace perft::inline PERFT_ABI

#pragma once
// The parameters of a model, trainable ones and adapters', in the order its modules list them.

#include <vector>  // the list

#include "perft/nn/slots.hpp"

namespace perft::inline PERFT_ABI {

namespace detail {

template <ComputeType C>
class CollectTrainable final : public Visitor<C> {
 public:
  std::vector<Parameter<Param<C>>*> found;

  void weight(Weight<Param<C>>& weight) override {
    if (Parameter<Param<C>>* parameter = weight.trained()) {
      found.push_back(parameter);
    }
  }

  void parameter(Parameter<Param<C>>& parameter) override {
    if (parameter.trainable()) {
      found.push_back(&parameter);
    }
  }
};

template <ComputeType C>
class CollectAdapter final : public Visitor<C> {
 public:
  std::vector<Parameter<Param<C>>*> found;

  void adapter_weight(Weight<Param<C>>& weight) override { found.push_back(weight.parameter()); }

  void adapter_parameter(Parameter<Param<C>>& parameter) override { found.push_back(&parameter); }
};

template <ComputeType C>
class TrainEverything final : public Visitor<C> {
 public:
  void weight(Weight<Param<C>>& weight) override { weight.make_trainable(); }

  void parameter(Parameter<Param<C>>& parameter) override { parameter.set_trainable(true); }
};

}  // namespace detail

/// Pointers stay valid while the model's slots are not replaced.
template <ComputeType C, class Model>
std::vector<Parameter<Param<C>>*> trainable_parameters(Model& model) {
  detail::CollectTrainable<C> visitor;
  model.visit(visitor);
  return std::move(visitor.found);
}

/// The parameters that belong to the attached adapters, trainable or not: what adapter files hold. Pointers stay valid
/// while the model's slots are not replaced.
template <ComputeType C, class Model>
std::vector<Parameter<Param<C>>*> adapter_parameters(Model& model) {
  detail::CollectAdapter<C> visitor;
  model.visit(visitor);
  return std::move(visitor.found);
}

/// Full fine-tuning: every matrix becomes an owned master in Param<C> (widened exactly), every vector trainable.
template <ComputeType C, class Model>
void train_everything(Model& model) {
  detail::TrainEverything<C> visitor;
  model.visit(visitor);
}

/// Value (or gradient) of a parameter as files hold it: row-major, transposed back if it is stored so.
template <class P>
Tensor<P> as_stored(const Parameter<P>& parameter, const Tensor<P>& tensor) {
  return parameter.stored_transposed() ? tensor.transpose(0, 1).clone() : tensor;
}

}  // namespace perft::inline PERFT_ABI

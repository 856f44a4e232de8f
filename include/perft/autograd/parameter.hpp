#pragma once
// Parameter: a named tensor that an optimiser may change.

#include <string>   // hub names
#include <utility>  // std::move

#include "perft/autograd/device_functions.hpp"
#include "perft/core/tensor.hpp"

namespace perft::inline PERFT_ABI {

/// A value, its accumulated gradient and whether it is trained. `trainable` and a module's training mode (dropout) are
/// different things; neither changes the other. A frozen parameter never owns a gradient.
template <class T, class Device = Cpu>
class Parameter {
 public:
  Parameter() = default;

  Parameter(std::string name, Tensor<T, Device> value) : name_(std::move(name)), value_(std::move(value)) {}

  Parameter(const Parameter&) = delete;  // nodes on a tape point at parameters: they stay where they are
  Parameter& operator=(const Parameter&) = delete;

  const std::string& name() const { return name_; }

  const Tensor<T, Device>& value() const { return value_; }

  Tensor<T, Device>& mutable_value() { return value_; }

  void set(std::string name, Tensor<T, Device> value) {
    name_ = std::move(name);
    value_ = std::move(value);
    gradient_ = {};
  }

  /// Files hold this matrix transposed ([in, out] here is [out, in] there): readers and writers swap.
  bool stored_transposed() const { return stored_transposed_; }

  void set_stored_transposed(bool transposed) { stored_transposed_ = transposed; }

  bool trainable() const { return trainable_; }

  void set_trainable(bool trainable) {
    trainable_ = trainable;
    if (!trainable) {
      gradient_ = {};
    }
  }

  /// Undefined until a backward pass has reached this parameter.
  const Tensor<T, Device>& gradient() const { return gradient_; }

  /// The tensor backward passes add into; zeros on first use. Throws ValueError for a frozen parameter: nothing may
  /// compute a gradient that nobody wants.
  Tensor<T, Device>& gradient_accumulator() {
    check<ValueError>(trainable_, "parameter '", name_, "' is frozen: it has no gradient to add into");
    if (!gradient_.defined()) {
      gradient_ = zeros_like(value_);
    }
    return gradient_;
  }

  void clear_gradient() { gradient_ = {}; }

 private:
  std::string name_;
  Tensor<T, Device> value_;
  Tensor<T, Device> gradient_;
  bool trainable_ = false;
  bool stored_transposed_ = false;
};

}  // namespace perft::inline PERFT_ABI

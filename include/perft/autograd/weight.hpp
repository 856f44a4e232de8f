#pragma once
// Weight: a base matrix [out, in] that is either frozen (mapped) or trained (owned fp32 master). Chosen at
// construction.

#include <memory>   // the trained parameter stays in place
#include <string>   // hub name
#include <utility>  // std::move

#include "perft/autograd/parameter.hpp"
#include "perft/core/frozen_matrix.hpp"
#include "perft/core/gemm.hpp"

namespace perft::inline PERFT_ABI {

/// P is Param<C>: the type of masters and gradients.
template <class P, class Device = Cpu>
class Weight {
 public:
  Weight() = default;

  explicit Weight(FrozenMatrix<Device> frozen) : frozen_(std::move(frozen)) {}

  /// An owned matrix from the start (an adapter's router); not trainable until said so.
  Weight(std::string name, Tensor<P, Device> value)
      : parameter_(std::make_unique<Parameter<P, Device>>(std::move(name), std::move(value))) {}

  const std::string& name() const { return parameter_ ? parameter_->name() : frozen_.name(); }

  std::int64_t rows() const { return parameter_ ? parameter_->value().size(0) : frozen_.rows(); }

  std::int64_t cols() const { return parameter_ ? parameter_->value().size(1) : frozen_.cols(); }

  DType dtype() const { return parameter_ ? dtype_of<P> : frozen_.dtype(); }

  const void* data() const { return parameter_ ? parameter_->value().data() : frozen_.data(); }

  /// The parameter to send a gradient to, or null: a frozen weight has none.
  Parameter<P, Device>* trained() const { return parameter_ && parameter_->trainable() ? parameter_.get() : nullptr; }

  /// The owned parameter, trainable or not; null for a mapped matrix.
  Parameter<P, Device>* parameter() const { return parameter_.get(); }

  /// Replaces the mapped matrix by an owned master in P (exact widening) with gradient.
  Parameter<P, Device>& make_trainable() {
    if (!parameter_) {
      parameter_ = std::make_unique<Parameter<P, Device>>(frozen_.name(), widened_copy<P>(frozen_));
    }
    parameter_->set_trainable(true);
    return *parameter_;
  }

  /// W [out, in] as it lies: the right-hand side of dx = dy · W.
  gemm::Operand operand() const { return {data(), dtype(), cols(), 1}; }

  /// Wᵀ [in, out], the same bytes read the other way: the right-hand side of y = x · Wᵀ.
  gemm::Operand transposed() const { return {data(), dtype(), 1, cols()}; }

 private:
  FrozenMatrix<Device> frozen_;
  std::unique_ptr<Parameter<P, Device>> parameter_;
};

}  // namespace perft::inline PERFT_ABI

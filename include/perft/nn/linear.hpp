#pragma once
// Linear without bias as a slot's plain content.

#include <utility>  // std::move

#include "perft/nn/slots.hpp"
#include "perft/ops/linear.hpp"

namespace perft::inline PERFT_ABI {

/// y = x Wᵀ, W [out, in]. Routers are made with Precision::kParam.
template <ComputeType C, class Device = Cpu>
class Linear final : public LinearSlot<C, Device> {
 public:
  explicit Linear(Weight<Param<C>, Device> weight, Precision precision = Precision::kCompute)
      : weight_(std::move(weight)), precision_(precision) {}

  Variable<C, Device> forward(const Variable<C, Device>& x, ForwardContext<C, Device>&) override {
    return linear<C>(x, weight_, precision_);
  }

  Variable<Param<C>, Device> forward_unrounded(const Variable<C, Device>& x, ForwardContext<C, Device>&) override {
    return linear<Param<C>>(x, weight_, precision_);
  }

  std::int64_t in() const override { return weight_.cols(); }

  std::int64_t out() const override { return weight_.rows(); }

  void visit(Visitor<C, Device>& visitor) override { visitor.weight(weight_); }

 private:
  Weight<Param<C>, Device> weight_;
  Precision precision_;
};

}  // namespace perft::inline PERFT_ABI

#pragma once
// The plain mixture-of-experts block: router, plan, experts.

#include <memory>   // slots
#include <string>   // paths
#include <utility>  // std::move

#include "perft/nn/slots.hpp"
#include "perft/ops/moe_experts_backward.hpp"

namespace perft::inline PERFT_ABI {

/// Plain routed experts.
template <ComputeType C, class Device = Cpu>
class Experts final : public ExpertsSlot<C, Device> {
 public:
  explicit Experts(ExpertTable<Param<C>, Device> table) : table_(std::move(table)) {}

  Variable<Param<C>, Device> forward(const Variable<C, Device>& x, const Variable<Param<C>, Device>& weights,
                                     std::shared_ptr<const DeviceRoutingPlan<Device>> plan,
                                     ForwardContext<C, Device>& context) override {
    return moe_experts(x, weights, std::move(plan), table_, std::shared_ptr<const ExpertLora<Param<C>, Device>>(),
                       context.hidden);
  }

  const ExpertTable<Param<C>, Device>& table() const override { return table_; }

  void visit(Visitor<C, Device>& visitor) override {
    for (Expert<Param<C>, Device>& expert : table_) {
      visitor.weight(expert.gate);
      visitor.weight(expert.up);
      visitor.weight(expert.down);
    }
  }

 private:
  ExpertTable<Param<C>, Device> table_;
};

/// y = Σ_{e in topk(G(x))} G(x)_e E_e(x). Source: transformers OlmoeSparseMoeBlock, MixtralSparseMoeBlock.
template <ComputeType C, class Device = Cpu>
class SparseMoe final : public MoeBlock<C, Device> {
 public:
  SparseMoe(std::unique_ptr<LinearSlot<C, Device>> gate, std::unique_ptr<ExpertsSlot<C, Device>> experts,
            std::int64_t top_k, bool renormalise)
      : gate_(std::move(gate)), experts_(std::move(experts)), top_k_(top_k), renormalise_(renormalise) {}

  MoeOutput<C, Device> forward(const Variable<C, Device>& x, ForwardContext<C, Device>& context) override {
    MoeOutput<C, Device> out;
    out.routing = context.route(gate_->forward_unrounded(x, context), top_k_, renormalise_, context.base_balance);
    auto plan = std::make_shared<const DeviceRoutingPlan<Device>>(make_routing_plan(out.routing.ids, gate_->out()));
    out.y = experts_->forward(x, out.routing.weights, std::move(plan), context);
    return out;
  }

  MoeShape shape() const override { return {gate_->in(), gate_->out(), top_k_, renormalise_}; }

  void visit(const std::string& path, Visitor<C, Device>& visitor) override {
    visitor.linear_slot(path + ".gate", gate_);
    gate_->visit(visitor);
    visitor.experts_slot(path + ".experts", experts_);
    experts_->visit(visitor);
  }

 private:
  std::unique_ptr<LinearSlot<C, Device>> gate_;
  std::unique_ptr<ExpertsSlot<C, Device>> experts_;
  std::int64_t top_k_;
  bool renormalise_;
};

}  // namespace perft::inline PERFT_ABI

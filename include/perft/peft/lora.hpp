#pragma once
// LoRA as decorators: around a linear slot (attention projections, router) and around the routed experts.

#include <memory>    // wrapped slots
#include <optional>  // no seed
#include <string>    // paths
#include <utility>   // std::move

#include "perft/nn/slots.hpp"
#include "perft/ops/add.hpp"
#include "perft/ops/low_rank.hpp"
#include "perft/ops/moe_experts_backward.hpp"
#include "perft/peft/bank.hpp"

namespace perft::inline PERFT_ABI {

/// y = W x + (α/r) B A dropout(x), added before the one rounding. Source: Hu et al. 2021; PEFT's Linear.
template <ComputeType C, class Device = Cpu>
class LoraLinear final : public LinearSlot<C, Device> {
 public:
  using P = Param<C>;

  /// `path` is the slot's; parameters are named path + ".lora_A.weight" and ".lora_B.weight". `site` keys its dropout.
  /// `base` is taken last: if anything throws, the caller still has it.
  LoraLinear(std::unique_ptr<LinearSlot<C, Device>>& base, const std::string& path, const AdapterSpec& spec,
             std::int64_t layer, std::uint64_t site, std::optional<std::uint64_t> seed)
      : dropout_(spec.dropout), site_(site) {
    bank_.in = base->in();
    bank_.out = base->out();
    bank_.alpha = spec.effective_alpha();
    bank_.experts.push_back(
        make_low_rank_expert<P, Device>(path + ".", spec, spec.rank_of(layer, 0), bank_.in, bank_.out, seed));
    base_ = std::move(base);
  }

  Variable<C, Device> forward(const Variable<C, Device>& x, ForwardContext<C, Device>& context) override {
    return cast<C>(forward_unrounded(x, context));
  }

  Variable<P, Device> forward_unrounded(const Variable<C, Device>& x, ForwardContext<C, Device>& context) override {
    // Two statements: what is recorded first must not depend on the compiler's order of arguments.
    const Variable<P, Device> y = base_->forward_unrounded(x, context);
    return add(y, low_rank(x, {}, Variable<P, Device>(), bank_, context.dropout(dropout_, site_)));
  }

  std::int64_t in() const override { return base_->in(); }

  std::int64_t out() const override { return base_->out(); }

  void visit(Visitor<C, Device>& visitor) override {
    base_->visit(visitor);
    visit_bank<C, Device>(bank_, visitor);
  }

  bool adapted() const override { return true; }

  std::unique_ptr<LinearSlot<C, Device>> release_base() override { return std::move(base_); }

 private:
  std::unique_ptr<LinearSlot<C, Device>> base_;
  LowRankBank<P, Device> bank_;
  double dropout_;
  std::uint64_t site_;
};

/// Every expert's chosen matrices with their own LoRA, inside the fused expert op.
template <ComputeType C, class Device = Cpu>
class LoraExperts final : public ExpertsSlot<C, Device> {
 public:
  using P = Param<C>;
  static constexpr std::uint64_t kDropoutSite = 16;  // … + 0, 1, 2 for gate, up, down

  /// `base` holds plain experts (their table is multiplied with here) and is taken last, as LoraLinear's.
  LoraExperts(std::unique_ptr<ExpertsSlot<C, Device>>& base, const std::string& path, const AdapterSpec& spec,
              std::int64_t layer, std::optional<std::uint64_t> seed)
      : dropout_(spec.dropout) {
    const ExpertTable<P, Device>& table = base->table();

    struct Branch {
      const char* role;
      LowRankBank<P, Device>& bank;
      bool down;
    };

    for (const Branch& branch :
         {Branch{"gate_proj", gate_, false}, Branch{"up_proj", up_, false}, Branch{"down_proj", down_, true}}) {
      if (!spec.targets_role(branch.role)) {
        continue;
      }
      branch.bank.in = branch.down ? table.front().down.cols() : table.front().gate.cols();
      branch.bank.out = branch.down ? table.front().down.rows() : table.front().gate.rows();
      branch.bank.alpha = spec.effective_alpha();
      for (std::size_t e = 0; e < table.size(); ++e) {
        branch.bank.experts.push_back(make_low_rank_expert<P, Device>(
            path + "." + std::to_string(e) + "." + branch.role + ".", spec,
            spec.rank_of(layer, static_cast<std::int64_t>(e)), branch.bank.in, branch.bank.out, seed));
      }
    }
    base_ = std::move(base);
  }

  Variable<P, Device> forward(const Variable<C, Device>& x, const Variable<P, Device>& weights,
                              std::shared_ptr<const DeviceRoutingPlan<Device>> plan,
                              ForwardContext<C, Device>& context) override {
    auto lora = std::make_shared<ExpertLora<P, Device>>();
    const auto branch = [&](LowRankBank<P, Device>& bank, std::uint64_t offset) -> ExpertLoraBranch<P, Device> {
      return {bank.experts.empty() ? nullptr : &bank, context.dropout(dropout_, kDropoutSite + offset)};
    };
    lora->gate = branch(gate_, 0);
    lora->up = branch(up_, 1);
    lora->down = branch(down_, 2);
    return moe_experts(x, weights, std::move(plan), base_->table(), std::shared_ptr<const ExpertLora<P, Device>>(lora),
                       context.hidden);
  }

  const ExpertTable<P, Device>& table() const override { return base_->table(); }

  void visit(Visitor<C, Device>& visitor) override {
    base_->visit(visitor);
    visit_bank<C, Device>(gate_, visitor);
    visit_bank<C, Device>(up_, visitor);
    visit_bank<C, Device>(down_, visitor);
  }

  bool adapted() const override { return true; }

  std::unique_ptr<ExpertsSlot<C, Device>> release_base() override { return std::move(base_); }

 private:
  std::unique_ptr<ExpertsSlot<C, Device>> base_;
  LowRankBank<P, Device> gate_, up_, down_;
  double dropout_;
};

}  // namespace perft::inline PERFT_ABI

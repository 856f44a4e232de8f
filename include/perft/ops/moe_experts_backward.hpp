#pragma once
// Backward of moe_experts and its node.

#include <memory>       // nodes
#include <string_view>  // node name
#include <type_traits>  // a null LoRA says nothing about the device
#include <vector>       // problems, partial sums

#include "perft/ops/linear.hpp"
#include "perft/ops/moe_experts.hpp"

namespace perft::inline PERFT_ABI {

template <ComputeType C, class Device = Cpu>
struct MoeGradients {
  Tensor<C, Device> dx;               // [T, D]; undefined unless asked for
  Tensor<Param<C>, Device> dweights;  // [T, K]; undefined unless asked for
};

namespace detail {

/// dL/d(gate | up) [T·K, 2F] and the router-weight gradient. Forward was
///   a = silu(g) ⊙ u,  E = down a,  y[t] += w · E.
/// With dA = downᵀ dy (not yet scaled by w): dw = <dA, a> (expert outputs are never needed), da = w · dA.
/// `act` [T·K, F], if defined, is filled with a.
template <ComputeType C>
Tensor<C> moe_hidden_gradient(const Tensor<Param<C>>& dy, const Tensor<Param<C>>& weights, const RoutingPlan& plan,
                              const ExpertTable<Param<C>>& experts, const ExpertLora<Param<C>>* lora,
                              const Tensor<Param<C>>& u_down, Tensor<C> hidden, Tensor<C>& act,
                              Tensor<Param<C>>* dweights) {
  using P = Param<C>;
  constexpr std::int64_t kGranule = 16;  // no block of columns is narrower, so each has its own partial sum
  const std::int64_t width = dy.size(1);
  const std::int64_t inner = experts.front().gate.rows();
  const std::int64_t granules = (inner + kGranule - 1) / kGranule;
  // A block reads its part of the hidden state before it writes the gradient: nobody else needs the storage any more.
  Tensor<C> dhidden = std::move(hidden);
  Tensor<P> partial = dweights != nullptr ? Tensor<P>::zeros({plan.entries(), granules}) : Tensor<P>();

  struct Context {
    const ExpertLora<P>* lora;
    const Tensor<P>* u_down;
    const RoutingPlan* plan;
    const P* weights;
    C* hidden;  // in: gate | up, out: their gradient
    C* act;
    P* partial;
    std::int64_t inner, granules, begin, expert;
  };

  std::vector<Context> contexts(experts.size());
  multiply_experts<C>(plan, [&](std::size_t e, std::int64_t begin, std::int64_t rows) {
    contexts[e] = {lora,
                   &u_down,
                   &plan,
                   weights.data(),
                   dhidden.mutable_data(),
                   act.defined() ? act.mutable_data() : nullptr,
                   dweights != nullptr ? partial.mutable_data() : nullptr,
                   inner,
                   granules,
                   begin,
                   static_cast<std::int64_t>(e)};
    gemm::Problem<C> problem{rows, inner, width, {dy.data(), dtype_of<P>, width, 1}, experts[e].down.operand()};
    problem.a.rows = plan.tokens.data() + begin;
    problem.context = &contexts[e];
    problem.epilogue = [](void* opaque, const gemm::Problem<C>&, const gemm::Block<P>& block) {
      const Context& c = *static_cast<const Context*>(opaque);
      const std::int64_t count = block.j1 - block.j0;
      std::vector<P> scratch(static_cast<std::size_t>(7 * count));
      P* a = scratch.data() + 2 * count;
      P* dgate = a + count;
      P* dup = dgate + count;
      P* lora_scratch = dup + count;
      for (std::int64_t i = block.i0; i < block.i1; ++i) {
        P* da = block.acc[0] + (i - block.i0) * block.ld_row;
        const std::int64_t p = c.begin + i;
        const auto at = static_cast<std::size_t>(p);
        if (c.lora != nullptr) {
          c.lora->down.expand_gradient(c.expert, *c.u_down, p, *c.plan, block.j0, count, da, lora_scratch);
        }
        C* row = c.hidden + p * 2 * c.inner + block.j0;
        const P* gate = widened<P>(static_cast<const C*>(row), scratch.data(), count);
        const P* up = widened<P>(static_cast<const C*>(row) + c.inner, scratch.data() + count, count);
        if (c.partial != nullptr || c.act != nullptr) {
          vec::silu_mul(gate, up, a, count);
          round_to<C>(a, count);
        }
        if (c.act != nullptr) {
          store_rounded(a, c.act + p * c.inner + block.j0, count);
        }
        if (c.partial != nullptr) {
          c.partial[p * c.granules + block.j0 / kGranule] = vec::dot(da, a, count);
        }
        vec::scale(c.weights[c.plan->tokens[at] * c.plan->top_k + c.plan->slots[at]], da, count);
        vec::silu_mul_backward(gate, up, da, dgate, dup, count);
        store_rounded(dgate, row, count);
        store_rounded(dup, row + c.inner, count);
      }
    };
    return problem;
  });
  if (dweights != nullptr) {
    P* out = dweights->mutable_data();
    parallel_for(plan.entries(), row_grain(granules), [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t entry = first; entry < last; ++entry) {
        const P* parts = partial.data() + plan.positions[static_cast<std::size_t>(entry)] * granules;
        P sum = 0;
        for (std::int64_t g = 0; g < granules; ++g) {
          sum += parts[g];
        }
        out[entry] = sum;
      }
    });
  }
  return dhidden;
}

/// slots[p, :] = gate_eᵀ dg[p] + up_eᵀ du[p] (+ the LoRA paths), in Param.
template <ComputeType C>
Tensor<Param<C>> moe_slot_gradient(const Tensor<C>& dhidden, const RoutingPlan& plan,
                                   const ExpertTable<Param<C>>& experts) {
  using P = Param<C>;
  const std::int64_t inner = experts.front().gate.rows();
  const std::int64_t width = experts.front().gate.cols();
  Tensor<P> slots = Tensor<P>::empty({plan.entries(), width});
  for (const bool up : {false, true}) {
    multiply_experts<C>(plan, [&](std::size_t e, std::int64_t begin, std::int64_t rows) {
      gemm::Problem<C> problem{rows,
                               width,
                               inner,
                               {dhidden.data() + begin * 2 * inner + (up ? inner : 0), dtype_of<C>, 2 * inner, 1},
                               (up ? experts[e].up : experts[e].gate).operand()};
      problem.c = {slots.mutable_data() + begin * width, dtype_of<P>, width, 1, up};
      return problem;
    });
  }
  return slots;
}

/// dW of the experts that are trained, as one job; never reached for frozen ones.
template <ComputeType C>
void moe_weight_gradients(const Tensor<Param<C>>& dy, const Tensor<C>& x, const Tensor<Param<C>>& weights,
                          const RoutingPlan& plan, const ExpertTable<Param<C>>& experts, const Tensor<C>& dhidden,
                          const Tensor<C>& act) {
  using P = Param<C>;
  const std::int64_t inner = experts.front().gate.rows();
  const std::int64_t width = dy.size(1);
  Tensor<P> weighted = Tensor<P>::empty(act.shape());  // w · a: dW_down = Σ dyᵀ (w a)
  parallel_for(plan.entries(), row_grain(inner), [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t p = first; p < last; ++p) {
      const auto at = static_cast<std::size_t>(p);
      P* row = weighted.mutable_data() + p * inner;
      vec::convert(act.data() + p * inner, row, inner);
      vec::scale(weights.data()[plan.tokens[at] * plan.top_k + plan.slots[at]], row, inner);
    }
  });
  std::vector<gemm::Problem<C>> problems;
  for (std::size_t e = 0; e < experts.size(); ++e) {
    const std::int64_t begin = plan.offsets[e];
    const std::int64_t rows = plan.offsets[e + 1] - begin;
    const std::int32_t* tokens = plan.tokens.data() + begin;
    gemm::Operand inputs{x.data(), dtype_of<C>, width, 1};
    inputs.rows = tokens;
    for (const bool up : {false, true}) {
      if (Parameter<P>* trained = (up ? experts[e].up : experts[e].gate).trained()) {
        const C* from = dhidden.data() + begin * 2 * inner + (up ? inner : 0);
        problems.push_back(weight_gradient_problem<C>(*trained, rows, {from, dtype_of<C>, 1, 2 * inner}, inputs));
      }
    }
    if (Parameter<P>* trained = experts[e].down.trained()) {
      gemm::Operand outputs{dy.data(), dtype_of<P>, 1, width};
      outputs.cols = tokens;
      problems.push_back(weight_gradient_problem<C>(*trained, rows, outputs,
                                                    {weighted.data() + begin * inner, dtype_of<P>, inner, 1}));
    }
  }
  gemm::run<C>(problems);
}

template <class P, class Device>
bool any_trained(const std::vector<Expert<P, Device>>& experts) {
  for (const Expert<P, Device>& expert : experts) {
    if (expert.gate.trained() != nullptr || expert.up.trained() != nullptr || expert.down.trained() != nullptr) {
      return true;
    }
  }
  return false;
}

}  // namespace detail

/// dy [T, D] Param<C> -> dx, dweights; gradients of trained experts and LoRA banks are added into their parameters.
/// `hidden` undefined: it is formed again from x. x may be undefined where neither that nor a gradient of gate or up
/// (their matrices or their LoRA) wants it. FLOPs 6·T·K·D·F (+ 4·T·K·D·F if formed again, + 6·T·K·D·F if
/// trained).
template <ComputeType C>
MoeGradients<C> moe_experts_backward(const Tensor<Param<C>>& dy, const Tensor<C>& x, const Tensor<Param<C>>& weights,
                                     const RoutingPlan& plan, const ExpertTable<Param<C>>& experts,
                                     const ExpertLora<Param<C>>* lora, const ExpertLoraState<Param<C>>& state,
                                     Tensor<C> hidden, bool need_dx, bool need_dweights) {
  using P = Param<C>;
  const std::int64_t inner = experts.front().gate.rows();
  const std::int64_t width = experts.front().gate.cols();
  const Shape shape{plan.tokens_count, width};
  check<ShapeError>(dy.shape() == shape, "moe_experts: dy is ", dy.shape(), ", expected ", shape);
  const bool trained = detail::any_trained(experts);
  const bool need_act = trained || (lora != nullptr && lora->down.trainable());
  Tensor<C> act = need_act ? Tensor<C>::empty({plan.entries(), inner}) : Tensor<C>();
  if (!hidden.defined()) {
    hidden = Tensor<C>::empty({plan.entries(), 2 * inner});
    Tensor<C> none;  // act comes with the hidden state's gradient
    detail::moe_hidden(x, plan, experts, lora, state, hidden, none);
  } else if (!hidden.unique()) {
    hidden = hidden.clone();  // its storage becomes that of its gradient
  }
  Tensor<P> u_down;
  if (lora != nullptr) {
    u_down = lora->down.shrink_gradient(dy.data(), width, plan, plan.tokens);
  }
  MoeGradients<C> out;
  if (need_dweights) {
    out.dweights = Tensor<P>::empty(weights.shape());
  }
  const Tensor<C> dhidden = detail::moe_hidden_gradient(dy, weights, plan, experts, lora, u_down, std::move(hidden),
                                                        act, need_dweights ? &out.dweights : nullptr);
  Tensor<P> u_gate, u_up;
  if (lora != nullptr) {
    u_gate = lora->gate.shrink_gradient(dhidden.data(), 2 * inner, plan, {});
    u_up = lora->up.shrink_gradient(dhidden.data() + inner, 2 * inner, plan, {});
    std::vector<P> factors(static_cast<std::size_t>(plan.entries()));
    for (std::size_t p = 0; p < factors.size(); ++p) {
      factors[p] = weights.data()[plan.tokens[p] * plan.top_k + plan.slots[p]];
    }
    lora->gate.reduce(plan, state.gate, u_gate, nullptr, x, plan.tokens, dhidden.data(), 2 * inner, {});
    lora->up.reduce(plan, state.up, u_up, nullptr, x, plan.tokens, dhidden.data() + inner, 2 * inner, {});
    lora->down.reduce(plan, state.down, u_down, factors.data(), act, {}, dy.data(), width, plan.tokens);
  }
  if (trained) {
    detail::moe_weight_gradients(dy, x, weights, plan, experts, dhidden, act);
  }
  if (need_dx) {
    Tensor<P> slots = detail::moe_slot_gradient(dhidden, plan, experts);
    if (lora != nullptr) {
      P* data = slots.mutable_data();
      detail::for_each_position<P>(plan, [&](std::int64_t e, std::int64_t p, std::vector<P>& scratch) {
        scratch.resize(static_cast<std::size_t>(2 * width));
        lora->gate.expand_gradient(e, u_gate, p, plan, 0, width, data + p * width, scratch.data());
        lora->up.expand_gradient(e, u_up, p, plan, 0, width, data + p * width, scratch.data());
      });
    }
    out.dx = Tensor<C>::empty(shape);
    detail::gather_sum(plan, slots, static_cast<const P*>(nullptr), out.dx);
  }
  return out;
}

/// Saves the weights, the plan, z of LoRA branches, the hidden state unless the policy is to form it again, and x if
/// that or the gradient of gate or up needs it.
template <ComputeType C, class Device = Cpu>
class MoeExpertsNode final : public Node {
 public:
  using P = Param<C>;

  MoeExpertsNode(Edge x_edge, Edge weights_edge, Edge y_edge, Saved<C, Device> x, Tensor<P, Device> weights,
                 std::shared_ptr<const DeviceRoutingPlan<Device>> plan, const ExpertTable<P, Device>& experts,
                 std::shared_ptr<const ExpertLora<P, Device>> lora, MoeForward<C, Device> forward)
      : x_edge_(x_edge),
        weights_edge_(weights_edge),
        y_edge_(y_edge),
        x_(std::move(x)),
        weights_(std::move(weights)),
        plan_(std::move(plan)),
        experts_(experts),
        lora_(std::move(lora)),
        forward_(std::move(forward)) {
    forward_.y = {};
  }

  std::string_view name() const override { return "moe_experts"; }

  std::size_t saved_bytes() const override {
    return x_.bytes() + weights_.bytes() + forward_.hidden.bytes() + forward_.lora.bytes() + plan_->bytes();
  }

  void backward(Tape& tape) override {
    const Tensor<P, Device> dy = tape.take_gradient<P, Device>(y_edge_);
    if (!dy.defined()) {
      return;
    }
    MoeGradients<C, Device> gradients =
        moe_experts_backward(dy, x_.get(), weights_, *plan_, experts_, lora_.get(), forward_.lora,
                             std::move(forward_.hidden), x_edge_.needed(), weights_edge_.needed());
    tape.add_gradient(x_edge_, std::move(gradients.dx));
    tape.add_gradient(weights_edge_, std::move(gradients.dweights));
  }

 private:
  Edge x_edge_, weights_edge_, y_edge_;
  Saved<C, Device> x_;
  Tensor<P, Device> weights_;
  std::shared_ptr<const DeviceRoutingPlan<Device>> plan_;
  const ExpertTable<P, Device>& experts_;
  std::shared_ptr<const ExpertLora<P, Device>> lora_;
  MoeForward<C, Device> forward_;
};

/// Differentiable moe_experts_forward. `lora` may be null; experts must outlive the tape.
template <ComputeType C, class Device>
Variable<Param<C>, Device> moe_experts(const Variable<C, Device>& x,
                                       const std::type_identity_t<Variable<Param<C>, Device>>& weights,
                                       std::shared_ptr<const std::type_identity_t<DeviceRoutingPlan<Device>>> plan,
                                       const ExpertTable<Param<C>, Device>& experts,
                                       std::shared_ptr<const std::type_identity_t<ExpertLora<Param<C>, Device>>> lora,
                                       HiddenPolicy policy) {
  const bool needed = Tape::current() != nullptr && (x.needs_gradient() || weights.needs_gradient() ||
                                                     detail::any_trained(experts) || (lora && lora->trainable()));
  MoeForward<C, Device> out = moe_experts_forward(x.value(), weights.value(), *plan, experts, lora.get(),
                                                  needed && policy == HiddenPolicy::kSave);
  const bool keep_x = policy == HiddenPolicy::kRecompute || detail::any_trained(experts) ||
                      (lora && (lora->gate.trainable() || lora->up.trainable()));
  Tensor<Param<C>, Device> y = out.y;
  return differentiable(std::move(y), needed, [&](Edge y_edge) {
    return std::make_unique<MoeExpertsNode<C, Device>>(x.edge(), weights.edge(), y_edge,
                                                       keep_x ? x.saved() : Saved<C, Device>(), weights.value(), plan,
                                                       experts, lora, std::move(out));
  });
}

}  // namespace perft::inline PERFT_ABI

#pragma once
// The expert half of an MoE block as one op: y[t] = Σ_s w[t,s] · down_e( silu(gate_e x[t]) ⊙ up_e x[t] ), e = ids[t,s].

#include <memory>       // nodes
#include <string_view>  // node name
#include <vector>       // problems, partial sums

#include "perft/autograd/variable.hpp"
#include "perft/autograd/weight.hpp"
#include "perft/core/gemm.hpp"
#include "perft/core/parallel.hpp"
#include "perft/core/vec.hpp"
#include "perft/ops/moe_lora.hpp"
#include "perft/ops/routing_plan.hpp"
#include "perft/ops/rows.hpp"
#include "perft/ops/weight_gradient.hpp"

namespace perft::inline PERFT_ABI {

/// One expert: gate and up [F, D], down [D, F].
template <class P, class Device = Cpu>
struct Expert {
  Weight<P, Device> gate, up, down;
};

template <class P, class Device = Cpu>
using ExpertTable = std::vector<Expert<P, Device>>;

/// Whether backward finds the gate/up pre-activations [T·K, 2F] saved or forms them again (one third of an expert
/// forward).
enum class HiddenPolicy { kSave, kRecompute };

template <ComputeType C, class Device = Cpu>
struct MoeForward {
  Tensor<Param<C>, Device> y;              // [T, D], not rounded
  Tensor<C, Device> hidden;                // [T·K, 2F] gate | up, by sorted position; undefined if not kept
  ExpertLoraState<Param<C>, Device> lora;  // z of the three LoRA banks; empty without them
};

namespace detail {

/// Multiplies, as one job, problem(e, begin, rows) of every expert e that has rows; they are sorted positions [begin,
/// begin + rows).
template <ComputeType C, class ProblemOf>
void multiply_experts(const RoutingPlan& plan, ProblemOf&& problem) {
  std::vector<gemm::Problem<C>> problems;
  for (std::size_t e = 0; e + 1 < plan.offsets.size(); ++e) {
    const std::int64_t begin = plan.offsets[e];
    const std::int64_t rows = plan.offsets[e + 1] - begin;
    if (rows > 0) {
      problems.push_back(problem(e, begin, rows));
    }
  }
  gemm::run<C>(problems);
}

/// hidden (gate | up) and act = silu(gate) ⊙ up, both by sorted position and in C. Either output may be undefined.
template <ComputeType C>
void moe_hidden(const Tensor<C>& x, const RoutingPlan& plan, const ExpertTable<Param<C>>& experts,
                const ExpertLora<Param<C>>* lora, const ExpertLoraState<Param<C>>& state, Tensor<C>& hidden,
                Tensor<C>& act) {
  using P = Param<C>;
  const std::int64_t width = x.size(1);
  const std::int64_t inner = experts.front().gate.rows();

  struct Context {
    const ExpertLora<P>* lora;
    const ExpertLoraState<P>* state;
    C* hidden;
    C* act;
    std::int64_t inner, begin, expert;
  };

  std::vector<Context> contexts(experts.size());
  multiply_experts<C>(plan, [&](std::size_t e, std::int64_t begin, std::int64_t rows) {
    contexts[e] = {lora,
                   &state,
                   hidden.defined() ? hidden.mutable_data() : nullptr,
                   act.defined() ? act.mutable_data() : nullptr,
                   inner,
                   begin,
                   static_cast<std::int64_t>(e)};
    gemm::Problem<C> problem{rows, inner, width, {x.data(), dtype_of<C>, width, 1}, experts[e].gate.transposed()};
    problem.a.rows = plan.tokens.data() + begin;
    problem.b2 = experts[e].up.transposed();
    problem.context = &contexts[e];
    problem.epilogue = [](void* opaque, const gemm::Problem<C>&, const gemm::Block<P>& block) {
      const Context& c = *static_cast<const Context*>(opaque);
      const std::int64_t count = block.j1 - block.j0;
      std::vector<P> scratch(static_cast<std::size_t>(count));
      for (std::int64_t i = block.i0; i < block.i1; ++i) {
        P* gate = block.acc[0] + (i - block.i0) * block.ld_row;
        P* up = block.acc[1] + (i - block.i0) * block.ld_row;
        const std::int64_t position = c.begin + i;
        if (c.lora != nullptr) {
          c.lora->gate.expand(c.expert, c.state->gate, position, block.j0, count, gate);
          c.lora->up.expand(c.expert, c.state->up, position, block.j0, count, up);
        }
        // Round first: backward sees the rounded values, and must differentiate what was computed.
        round_to<C>(gate, count);
        round_to<C>(up, count);
        if (c.hidden != nullptr) {
          store_rounded(gate, c.hidden + position * 2 * c.inner + block.j0, count);
          store_rounded(up, c.hidden + position * 2 * c.inner + c.inner + block.j0, count);
        }
        if (c.act != nullptr) {
          vec::silu_mul(gate, up, scratch.data(), count);
          store_rounded(scratch.data(), c.act + position * c.inner + block.j0, count);
        }
      }
    };
    return problem;
  });
}

/// out[t, :] = Σ_s weight(t, s) · slots[position(t, s), :], slots in order; no atomics.
template <class Out, class Slot, class P>
void gather_sum(const RoutingPlan& plan, const Tensor<Slot>& slots, const P* weights, Tensor<Out>& out) {
  const std::int64_t width = slots.size(1);
  Out* to = out.mutable_data();
  parallel_for(plan.tokens_count, row_grain(width * plan.top_k), [&](std::int64_t begin, std::int64_t end) {
    std::vector<P> scratch(static_cast<std::size_t>(2 * width));
    for (std::int64_t t = begin; t < end; ++t) {
      P* sum = scratch.data();
      std::fill_n(sum, width, P{0});
      for (std::int64_t s = 0; s < plan.top_k; ++s) {
        const std::int64_t entry = t * plan.top_k + s;
        const P* row = widened(slots.data() + plan.positions[static_cast<std::size_t>(entry)] * width,
                               scratch.data() + width, width);
        vec::axpy(weights != nullptr ? weights[entry] : P{1}, row, sum, width);
      }
      store_rounded(sum, to + t * width, width);
    }
  });
}

}  // namespace detail

/// x [T, D] C, weights [T, K] Param<C>, plan of ids [T, K] -> y [T, D] Param<C> (rounded by whoever adds to it).
/// Expert outputs are rounded to C (as transformers does) and never kept. FLOPs 6·T·K·D·F.
/// `lora` (may be null) adds LoRA to each expert's three matrices.
/// Source: transformers OlmoeExperts / MixtralExperts; He 2024 (ScatterMoE), Guo et al. 2025 (SonicMoE) for the plan.
template <ComputeType C>
MoeForward<C> moe_experts_forward(const Tensor<C>& x, const Tensor<Param<C>>& weights, const RoutingPlan& plan,
                                  const ExpertTable<Param<C>>& experts, const ExpertLora<Param<C>>* lora,
                                  bool keep_hidden) {
  using P = Param<C>;
  check<ShapeError>(!experts.empty() && plan.experts() == static_cast<std::int64_t>(experts.size()),
                    "moe_experts: the plan is for ", plan.experts(), " experts, the table holds ", experts.size());
  const std::int64_t inner = experts.front().gate.rows();
  check<ShapeError>(
      x.rank() == 2 && x.contiguous() && x.size(1) == experts.front().gate.cols() && x.size(0) == plan.tokens_count,
      "moe_experts: x is ", x.shape(), ", expected contiguous [", plan.tokens_count, ", ", experts.front().gate.cols(),
      "]");
  check<ShapeError>(weights.shape() == Shape{x.size(0), plan.top_k}, "moe_experts: weights are ", weights.shape(),
                    ", expected [", x.size(0), ", ", plan.top_k, "]");
  const std::int64_t width = x.size(1);
  MoeForward<C> out;
  if (lora != nullptr) {
    out.lora.gate = lora->gate.shrink(x, plan, plan.tokens);
    out.lora.up = lora->up.shrink(x, plan, plan.tokens);
  }
  if (keep_hidden) {
    out.hidden = Tensor<C>::empty({plan.entries(), 2 * inner});
  }
  Tensor<C> act = Tensor<C>::empty({plan.entries(), inner});
  detail::moe_hidden(x, plan, experts, lora, out.lora, out.hidden, act);
  if (lora != nullptr) {
    out.lora.down = lora->down.shrink(act, plan, {});
  }
  Tensor<C> slots = Tensor<C>::empty({plan.entries(), width});

  struct Context {
    const ExpertLora<P>* lora;
    const Tensor<P>* z;
    C* slots;
    std::int64_t width, begin, expert;
  };

  std::vector<Context> contexts(experts.size());
  detail::multiply_experts<C>(plan, [&](std::size_t e, std::int64_t begin, std::int64_t rows) {
    gemm::Problem<C> problem{
        rows, width, inner, {act.data() + begin * inner, dtype_of<C>, inner, 1}, experts[e].down.transposed()};
    if (lora == nullptr) {
      problem.c = {slots.mutable_data() + begin * width, dtype_of<C>, width, 1, false};
    } else {
      contexts[e] = {lora, &out.lora.down, slots.mutable_data(), width, begin, static_cast<std::int64_t>(e)};
      problem.context = &contexts[e];
      problem.epilogue = [](void* opaque, const gemm::Problem<C>&, const gemm::Block<P>& block) {
        const Context& c = *static_cast<const Context*>(opaque);
        const std::int64_t count = block.j1 - block.j0;
        for (std::int64_t i = block.i0; i < block.i1; ++i) {
          P* row = block.acc[0] + (i - block.i0) * block.ld_row;
          c.lora->down.expand(c.expert, *c.z, c.begin + i, block.j0, count, row);
          store_rounded(row, c.slots + (c.begin + i) * c.width + block.j0, count);
        }
      };
    }
    return problem;
  });
  out.y = Tensor<P>::empty({x.size(0), width});
  detail::gather_sum(plan, slots, weights.data(), out.y);
  return out;
}

}  // namespace perft::inline PERFT_ABI

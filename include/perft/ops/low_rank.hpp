#pragma once
// Routed low-rank experts: y[t] = Σ_s w[t,s] · Δ_{ids[t,s]}(x[t]). The one op behind PERFT-S, -D, -R, -E and LoRA.

#include <algorithm>    // std::min
#include <cmath>        // std::exp
#include <memory>       // nodes
#include <string_view>  // node name
#include <type_traits>  // undefined weights say nothing about the device
#include <vector>       // scratch rows

#include "perft/autograd/variable.hpp"
#include "perft/core/parallel.hpp"
#include "perft/core/vec.hpp"
#include "perft/ops/dropout.hpp"
#include "perft/ops/low_rank_bank.hpp"
#include "perft/ops/low_rank_reduce.hpp"
#include "perft/ops/rows.hpp"

namespace perft::inline PERFT_ABI {

/// What a token's slots point at. Undefined ids: every token goes through every expert, slot s = expert s (S, D, LoRA).
/// Undefined weights: 1.
template <class P, class Device = Cpu>
struct LowRankPlan {
  Tensor<std::int32_t, Device> ids;  // [T, K]
  Tensor<P, Device> weights;         // [T, K]

  std::int64_t slots(const LowRankBank<P, Device>& bank) const { return ids.defined() ? ids.size(1) : bank.size(); }

  std::int64_t expert(std::int64_t token, std::int64_t slot) const {
    return ids.defined() ? ids.data()[token * ids.size(1) + slot] : slot;
  }

  P weight(std::int64_t token, std::int64_t slot) const {
    return weights.defined() ? weights.data()[token * weights.size(1) + slot] : P{1};
  }
};

template <class P, class Device = Cpu>
struct LowRankOutput {
  Tensor<P, Device> y;  // [T, out]
  Tensor<P, Device> z;  // [T, K, r_max] A · dropout(x), the only state backward needs beside x
};

/// x [T, in] C, plan over bank -> y [T, out] Param<C>. Everything is done in Param<C>. FLOPs 2·T·K·r·(in + out).
/// Throws ShapeError if x, ids or weights do not fit, ValueError naming the token of an id that is none of the bank's.
/// Source: PERFT (arXiv 2411.08212) §3; Hu et al. 2021 (LoRA).
template <ComputeType C>
LowRankOutput<Param<C>> low_rank_forward(const Tensor<C>& x, const LowRankPlan<Param<C>>& plan,
                                         const LowRankBank<Param<C>>& bank, const Dropout& dropout) {
  using P = Param<C>;
  check<ShapeError>(x.rank() == 2 && x.contiguous() && x.size(1) == bank.in, "low_rank: x is ", x.shape(),
                    ", expected contiguous [T, ", bank.in, "]");
  const std::int64_t tokens = x.size(0);
  const std::int64_t slots = plan.slots(bank);
  check<ShapeError>(!plan.ids.defined() || plan.ids.size(0) == tokens, "low_rank: ids are ", plan.ids.shape(),
                    ", expected [", tokens, ", K]");
  check<ShapeError>(!plan.weights.defined() || plan.weights.shape() == Shape{tokens, slots}, "low_rank: weights are ",
                    plan.weights.shape(), ", expected [", tokens, ", ", slots, "]");
  dropout.check_tokens(tokens);
  for (std::int64_t i = 0; plan.ids.defined() && i < plan.ids.numel(); ++i) {
    const std::int32_t id = plan.ids.data()[i];
    check<ValueError>(id >= 0 && id < bank.size(), "low_rank: token ", i / slots, " chose expert ", id,
                      ", expected [0, ", bank.size(), ")");
  }
  const std::int64_t rank = bank.max_rank();
  LowRankOutput<P> out{Tensor<P>::zeros({tokens, bank.out}), Tensor<P>::empty({tokens, slots, rank})};
  P* y = out.y.mutable_data();
  P* z_all = out.z.mutable_data();
  const bool lora = bank.form == DeltaForm::kLora;
  parallel_for(tokens, 16, [&](std::int64_t begin, std::int64_t end) {
    std::vector<P> scratch(static_cast<std::size_t>(3 * bank.in + 2 * rank));
    P* masked = scratch.data() + bank.in;
    P* mask = masked + bank.in;
    P* coefficients = mask + bank.in;
    P* hidden_mask = coefficients + rank;
    for (std::int64_t t = begin; t < end; ++t) {
      const P* xt = widened(x.data() + t * bank.in, scratch.data(), bank.in);
      for (std::int64_t s = 0; s < slots; ++s) {
        const std::int64_t e = plan.expert(t, s);
        const LowRankExpert<P>& expert = bank[e];
        const std::int64_t r = expert.rank();
        P* z = z_all + (t * slots + s) * rank;
        const P* input = xt;
        if (lora && dropout.active()) {
          dropout.mask_row(t, e, mask, bank.in);
          vec::mul(xt, mask, masked, bank.in);
          input = masked;
        }
        vec::multi_dot(input, expert.a.value().data(), bank.in, r, bank.in, z);
        const P factor = plan.weight(t, s) * bank.scale(e);
        if (lora) {
          for (std::int64_t q = 0; q < r; ++q) {
            coefficients[q] = factor * z[q];
          }
        } else {
          if (dropout.active()) {
            dropout.mask_row(t, e, hidden_mask, r);
            vec::mul(z, hidden_mask, z, r);
          }
          for (std::int64_t q = 0; q < r; ++q) {
            coefficients[q] = factor * z[q] / (P{1} + std::exp(-z[q]));
          }
        }
        vec::multi_axpy(coefficients, expert.b.value().data(), bank.out, r, bank.out, y + t * bank.out);
      }
    }
  });
  return out;
}

template <ComputeType C, class Device = Cpu>
struct LowRankGradients {
  Tensor<C, Device> dx;               // [T, in]; undefined unless asked for
  Tensor<Param<C>, Device> dweights;  // [T, K]; undefined unless asked for
};

/// With u = B dy (per slot): dw = scale·<u, act(z)>, dz = scale·w·u ⊙ act'(z), dx += dropout'(Aᵀ dz), dA += dz x̃ᵀ,
/// dB += scale·w·dy act(z)ᵀ. Gradients of A and B are added into the bank's trainable parameters; an expert no token
/// chose gets zeros, not nothing. dy [T, out].
template <ComputeType C>
LowRankGradients<C> low_rank_backward(const Tensor<Param<C>>& dy, const Tensor<C>& x, const LowRankPlan<Param<C>>& plan,
                                      LowRankBank<Param<C>>& bank, const Tensor<Param<C>>& z, const Dropout& dropout,
                                      bool need_dx, bool need_dweights) {
  using P = Param<C>;
  const std::int64_t tokens = x.size(0);
  const std::int64_t slots = plan.slots(bank);
  const std::int64_t rank = bank.max_rank();
  const bool lora = bank.form == DeltaForm::kLora;
  LowRankGradients<C> out;
  if (need_dx) {
    out.dx = Tensor<C>::empty(x.shape());
  }
  if (need_dweights) {
    out.dweights = Tensor<P>::empty({tokens, slots});
  }
  C* dx = need_dx ? out.dx.mutable_data() : nullptr;
  P* dweights = need_dweights ? out.dweights.mutable_data() : nullptr;
  Tensor<P> dz_all = Tensor<P>::zeros({tokens, slots, rank});        // gradient of A x̃
  Tensor<P> coefficients = Tensor<P>::zeros({tokens, slots, rank});  // what multiplies dy in dB
  P* dz_data = dz_all.mutable_data();
  P* coefficient_data = coefficients.mutable_data();
  parallel_for(tokens, 16, [&](std::int64_t begin, std::int64_t end) {
    std::vector<P> scratch(static_cast<std::size_t>(3 * bank.in + 2 * rank));
    P* dxt = scratch.data();
    P* path = dxt + bank.in;
    P* mask = path + bank.in;
    P* u = mask + bank.in;
    P* hidden_mask = u + rank;
    for (std::int64_t t = begin; t < end; ++t) {
      const P* dyt = dy.data() + t * bank.out;
      std::fill_n(dxt, bank.in, P{0});
      for (std::int64_t s = 0; s < slots; ++s) {
        const std::int64_t e = plan.expert(t, s);
        const LowRankExpert<P>& expert = bank[e];
        const std::int64_t r = expert.rank();
        const std::int64_t at = (t * slots + s) * rank;
        const P* zt = z.data() + at;
        P* dz = dz_data + at;
        P* c = coefficient_data + at;
        const P scale = bank.scale(e);
        const P factor = scale * plan.weight(t, s);
        vec::multi_dot(dyt, expert.b.value().data(), bank.out, r, bank.out, u);
        P dw = 0;
        if (lora) {
          for (std::int64_t q = 0; q < r; ++q) {
            dw += u[q] * zt[q];
            c[q] = factor * zt[q];
            dz[q] = factor * u[q];
          }
        } else {
          if (dropout.active()) {
            dropout.mask_row(t, e, hidden_mask, r);
          }
          for (std::int64_t q = 0; q < r; ++q) {
            const P sigmoid = P{1} / (P{1} + std::exp(-zt[q]));
            dw += u[q] * zt[q] * sigmoid;
            c[q] = factor * zt[q] * sigmoid;
            dz[q] = factor * u[q] * sigmoid * (P{1} + zt[q] * (P{1} - sigmoid));
            if (dropout.active()) {
              dz[q] *= hidden_mask[q];
            }
          }
        }
        if (dweights != nullptr) {
          dweights[t * slots + s] = scale * dw;
        }
        if (dx != nullptr) {
          if (lora && dropout.active()) {
            std::fill_n(path, bank.in, P{0});
            vec::multi_axpy(dz, expert.a.value().data(), bank.in, r, bank.in, path);
            dropout.mask_row(t, e, mask, bank.in);
            vec::mul(path, mask, path, bank.in);
            vec::add(dxt, path, dxt, bank.in);
          } else {
            vec::multi_axpy(dz, expert.a.value().data(), bank.in, r, bank.in, dxt);
          }
        }
      }
      if (dx != nullptr) {
        store_rounded(dxt, dx + t * bank.in, bank.in);
      }
    }
  });
  if (bank.trainable()) {
    const EntryLists entries(plan.ids, tokens, bank.size());
    const auto count = [&](std::int64_t e) { return entries.count(e); };
    const auto from = [&](const P* base) {
      return [&, base](std::int64_t e, std::int64_t i) {
        return base + (entries.token(e, i) * slots + entries.slot(e, i)) * rank;
      };
    };
    detail::reduce_low_rank_gradient<P>(
        bank, detail::select_a<P>, count, from(dz_data),
        [&](std::int64_t e, std::int64_t i, std::int64_t first, std::int64_t n, P* row, P* mask) {
          const std::int64_t t = entries.token(e, i);
          const P* xt = widened(x.data() + t * bank.in + first, row, n);
          if (lora && dropout.active()) {
            dropout.mask_row(t, e, mask, n, first);
            vec::mul(xt, mask, row, n);
            return static_cast<const P*>(row);
          }
          return xt;
        });
    detail::reduce_low_rank_gradient<P>(bank, detail::select_b<P>, count, from(coefficient_data),
                                        [&](std::int64_t e, std::int64_t i, std::int64_t first, std::int64_t, P*, P*) {
                                          return dy.data() + entries.token(e, i) * bank.out + first;
                                        });
  }
  return out;
}

/// Saves x, z, ids and weights.
template <ComputeType C, class Device = Cpu>
class LowRankNode final : public Node {
 public:
  using P = Param<C>;

  LowRankNode(Edge x_edge, Edge weights_edge, Edge y_edge, Saved<C, Device> x, LowRankPlan<P, Device> plan,
              LowRankBank<P, Device>& bank, Tensor<P, Device> z, Dropout dropout)
      : x_edge_(x_edge),
        weights_edge_(weights_edge),
        y_edge_(y_edge),
        x_(std::move(x)),
        plan_(std::move(plan)),
        bank_(bank),
        z_(std::move(z)),
        dropout_(std::move(dropout)) {}

  std::string_view name() const override { return "low_rank"; }

  std::size_t saved_bytes() const override {
    return x_.bytes() + z_.bytes() + plan_.ids.bytes() + plan_.weights.bytes();
  }

  void backward(Tape& tape) override {
    const Tensor<P, Device> dy = tape.take_gradient<P, Device>(y_edge_);
    if (!dy.defined()) {
      return;
    }
    LowRankGradients<C, Device> gradients =
        low_rank_backward(dy, x_.get(), plan_, bank_, z_, dropout_, x_edge_.needed(), weights_edge_.needed());
    tape.add_gradient(x_edge_, std::move(gradients.dx));
    tape.add_gradient(weights_edge_, std::move(gradients.dweights));
  }

 private:
  Edge x_edge_;
  Edge weights_edge_;
  Edge y_edge_;
  Saved<C, Device> x_;
  LowRankPlan<P, Device> plan_;
  LowRankBank<P, Device>& bank_;
  Tensor<P, Device> z_;
  Dropout dropout_;
};

/// Differentiable low_rank_forward; `ids` and `weights` may be undefined (see LowRankPlan). The bank must outlive the
/// tape.
template <ComputeType C, class Device>
Variable<Param<C>, Device> low_rank(const Variable<C, Device>& x, const Tensor<std::int32_t, Device>& ids,
                                    const std::type_identity_t<Variable<Param<C>, Device>>& weights,
                                    LowRankBank<Param<C>, Device>& bank, const Dropout& dropout) {
  const LowRankPlan<Param<C>, Device> plan{ids, weights.value()};
  LowRankOutput<Param<C>, Device> out = low_rank_forward(x.value(), plan, bank, dropout);
  return differentiable(out.y, x.needs_gradient() || weights.needs_gradient() || bank.trainable(), [&](Edge y_edge) {
    return std::make_unique<LowRankNode<C, Device>>(x.edge(), weights.edge(), y_edge, x.saved(), plan, bank, out.z,
                                                    dropout);
  });
}

}  // namespace perft::inline PERFT_ABI

#pragma once
// Tables of experts with LoRA, and what moe_experts computes, in the scalar of the complex step.

#include <optional>  // banks that may be missing
#include <string>    // names

#include "ops/support/low_rank_case.hpp"
#include "perft/ops/moe_experts_backward.hpp"

namespace harness {

/// Sizes of one MoE call. The last expert gets no token.
struct MoeSize {
  std::int64_t tokens, top_k, experts, width, inner;

  perft::Tensor<std::int32_t> ids() const {
    std::vector<std::int32_t> ids;
    const auto busy = static_cast<std::int32_t>(experts) - 1;
    for (std::int32_t t = 0; t < static_cast<std::int32_t>(tokens); ++t) {
      for (std::int32_t s = 0; s < static_cast<std::int32_t>(top_k); ++s) {
        ids.push_back((t * t + 2 * t + s) % busy);
      }
    }
    return int_tensor(ids, {tokens, top_k});
  }
};

/// Which of an expert's three matrices: gate, up, down (bits 1, 2, 4).
constexpr unsigned kGate = 1, kUp = 2, kDown = 4, kAll = 7;

/// One LoRA branch, if it is there.
struct MoeBranch {
  BankShape bank;
  perft::Dropout dropout;
};

using MoeBranches = std::array<std::optional<MoeBranch>, 3>;

/// y [T, D]. in: x, weights, every expert's gate, up, down, then each branch's A and B.
template <class S>
std::vector<S> moe_reference(const std::vector<std::vector<S>>& in, const MoeSize& size, const MoeBranches& branches) {
  const auto d = static_cast<std::size_t>(size.width), f = static_cast<std::size_t>(size.inner);
  const auto n = static_cast<std::size_t>(size.experts), k = static_cast<std::size_t>(size.top_k);
  const auto ids = size.ids();
  std::vector<S> y(in[0].size(), S(0.0));
  for (std::size_t t = 0; t < static_cast<std::size_t>(size.tokens); ++t) {
    const std::vector<S> row(in[0].begin() + static_cast<std::ptrdiff_t>(t * d),
                             in[0].begin() + static_cast<std::ptrdiff_t>((t + 1) * d));
    for (std::size_t s = 0; s < k; ++s) {
      const auto e = static_cast<std::size_t>(ids.data()[t * k + s]);
      const auto project = [&](std::size_t which, const std::vector<S>& input, std::size_t out) {
        auto value = reference::linear(input, in[2 + 3 * e + which], input.size(), out);
        std::size_t at = 2 + 3 * n;
        for (std::size_t i = 0; i < which; ++i) {
          at += branches[i] ? 2 * n : 0;
        }
        if (branches[which]) {
          const auto delta =
              delta_of_row(branches[which]->bank, input, in[at + e], in[at + n + e], branches[which]->dropout,
                           static_cast<std::int64_t>(t), static_cast<std::int64_t>(e));
          for (std::size_t i = 0; i < value.size(); ++i) {
            value[i] += delta[i];
          }
        }
        return value;
      };
      const auto act = reference::swiglu(project(0, row, f), project(1, row, f));
      const auto out = project(2, act, d);
      for (std::size_t c = 0; c < d; ++c) {
        y[t * d + c] += in[1][t * k + s] * out[c];
      }
    }
  }
  return y;
}

inline std::vector<Values> exact_moe_gradients(const std::vector<Values>& inputs, const MoeSize& size,
                                               const MoeBranches& branches, const Values& dy) {
  return exact_gradients([&](const std::vector<Complexes>& z) { return moe_reference(z, size, branches); }, inputs, dy);
}

/// One call: data in C, experts of which `trained` matrices are trained (the rest frozen, misaligned storage), LoRA
/// banks on `lora` matrices of which `lora_trained` are trained (A of these and B of `lora_b_trained`, if given), with
/// dropout p.
template <class C>
struct MoeCase {
  using P = perft::Param<C>;

  MoeSize size;
  perft::Tensor<C> x;
  perft::Tensor<P> weights, dy;
  std::shared_ptr<const perft::RoutingPlan> plan;
  perft::ExpertTable<P> experts;
  std::array<std::optional<perft::LowRankBank<P>>, 3> banks;
  std::shared_ptr<perft::ExpertLora<P>> lora;
  std::set<std::string, std::less<>> trained_names;

  static constexpr double kFill = 0.25;  // what gradients start from

  MoeCase(const MoeSize& s, unsigned trained, unsigned lora_on, unsigned lora_trained, double p,
          std::optional<unsigned> lora_b_trained = {})
      : size(s) {
    x = tensor<C>(numbers(s.tokens * s.width, 1, 1.5), {s.tokens, s.width});
    weights = tensor<P>(numbers(s.tokens * s.top_k, 2), {s.tokens, s.top_k});
    // dy is multiplied in C: start from values C holds.
    dy = tensor<P>(as_operand<C>(numbers(s.tokens * s.width, 3)), {s.tokens, s.width});
    plan = std::make_shared<const perft::RoutingPlan>(perft::make_routing_plan(s.ids(), s.experts));
    for (unsigned e = 0; e < static_cast<unsigned>(s.experts); ++e) {
      const auto matrix = [&](unsigned which, std::int64_t rows, std::int64_t cols) {
        const std::string name = "expert" + std::to_string(e) + "." + std::to_string(which);
        const auto storage = std::same_as<C, double>  ? perft::DType::f64
                             : std::same_as<C, float> ? perft::DType::f32
                                                      : perft::DType::bf16;
        auto w = frozen<P>(name, numbers(rows * cols, 100 + 8 * e + which), storage, rows, cols).weight;
        if ((trained & which) != 0) {
          prefill_gradient(w.make_trainable(), kFill);
          trained_names.insert(name);
        }
        return w;
      };
      experts.push_back(
          {matrix(kGate, s.inner, s.width), matrix(kUp, s.inner, s.width), matrix(kDown, s.width, s.inner)});
    }
    if (lora_on == 0) {
      return;
    }
    lora = std::make_shared<perft::ExpertLora<P>>();
    std::vector<std::int64_t> ranks;  // ragged
    for (std::int64_t e = 0; e < s.experts; ++e) {
      ranks.push_back(1 + e % 3);
    }
    const std::array<perft::ExpertLoraBranch<P>*, 3> branches{&lora->gate, &lora->up, &lora->down};
    for (unsigned i = 0; i < 3; ++i) {
      if ((lora_on & (1U << i)) != 0) {
        banks[i] = make_bank<P>(perft::DeltaForm::kLora, i == 2 ? s.inner : s.width, i == 2 ? s.width : s.inner, ranks,
                                500 + 50 * i);
        banks[i]->alpha = 1.0;  // pre-activations of a few units: bf16's error in silu' grows with them
        train_bank(*banks[i], (lora_trained & (1U << i)) != 0, (lora_b_trained.value_or(lora_trained) & (1U << i)) != 0,
                   kFill);
        branches[i]->bank = &*banks[i];
        branches[i]->dropout = make_dropout(p, s.tokens, i);
      }
    }
  }

  MoeCase(const MoeCase&) = delete;
  MoeCase& operator=(const MoeCase&) = delete;

  /// x, weights, every expert's gate, up, down, then each bank's A and B.
  std::vector<Values> inputs() const {
    std::vector<Values> in{values(x), values(weights)};
    for (const auto& expert : experts) {
      for (const auto* w : {&expert.gate, &expert.up, &expert.down}) {
        auto numbers = perft::Tensor<P>::empty({w->rows(), w->cols()});
        perft::vec::convert_bytes(w->data(), w->dtype(), numbers.mutable_data(), numbers.numel());
        in.push_back(values(numbers));
      }
    }
    for (const auto& bank : banks) {
      if (bank) {
        append_bank(*bank, in);
      }
    }
    return in;
  }

  MoeBranches branches() const {
    MoeBranches out;
    if (lora == nullptr) {
      return out;
    }
    const std::array<const perft::ExpertLoraBranch<P>*, 3> from{&lora->gate, &lora->up, &lora->down};
    for (std::size_t i = 0; i < 3; ++i) {
      if (banks[i]) {
        out[i] = MoeBranch{BankShape(*banks[i]), from[i]->dropout};
      }
    }
    return out;
  }

  /// y [T, D] in double.
  Values reference() const { return moe_reference(inputs(), size, branches()); }

  /// Gradients of <dy, y> in the order of inputs().
  std::vector<Values> exact() const { return exact_moe_gradients(inputs(), size, branches(), values(dy)); }

  /// What the node keeps. x is wanted by gate and up alone: to form them again, or for their own gradient.
  std::size_t saved_bytes(bool hidden) const {
    const auto entries = static_cast<std::size_t>(size.tokens * size.top_k);
    const bool gate_or_up_lora = (banks[0] && banks[0]->trainable()) || (banks[1] && banks[1]->trainable());
    std::size_t bytes = !hidden || !trained_names.empty() || gate_or_up_lora ? x.bytes() : 0;
    bytes += weights.bytes() + (3 * entries + static_cast<std::size_t>(size.experts) + 1) * sizeof(std::int32_t);
    bytes += hidden ? entries * 2 * static_cast<std::size_t>(size.inner) * sizeof(C) : 0;
    for (const auto& bank : banks) {
      bytes += bank ? entries * static_cast<std::size_t>(bank->max_rank()) * sizeof(P) : 0;
    }
    return bytes;
  }

  /// Roundings on the way of an entry. The walk is over all sums of the chain; in bf16 gate, up, the activation and an
  /// expert's output are rounded forward, a, dg, du and w·a backward.
  support::Tolerance forward_tolerance() const {
    const double walk = 2.0 * static_cast<double>(size.width + size.inner);
    auto allowed = tolerance<C>(walk, 4);
    if constexpr (!std::same_as<C, double>) {  // a pre-activation's error is relative to its norm, and y may be smaller
      allowed.abs = tolerance<P>(walk, 0).rel_to_max * std::sqrt(static_cast<double>(size.width));
    }
    return allowed;
  }

  support::Tolerance gradient_tolerance() const {
    auto allowed =
        tolerance<C>(4.0 * static_cast<double>(size.width + size.inner) + static_cast<double>(size.tokens), 8);
    allowed.abs = std::same_as<C, double> ? 1e-14 : support::epsilon<float>();  // kFill is added and taken away again
    return allowed;
  }

  /// Every parameter's gradient against exact(): there if trained, absent if not.
  void check_parameters(const std::vector<Values>& expected) const {
    for (std::size_t e = 0; e < experts.size(); ++e) {
      const std::array<const perft::Weight<P>*, 3> matrices{&experts[e].gate, &experts[e].up, &experts[e].down};
      for (std::size_t i = 0; i < 3; ++i) {
        if (const auto* trained = matrices[i]->trained()) {
          CAPTURE(e, i);
          CHECK(close(added_gradient(*trained, kFill), expected[2 + 3 * e + i], gradient_tolerance()));
        }
      }
    }
    std::size_t at = 2 + 3 * experts.size();
    for (const auto& bank : banks) {
      if (!bank) {
        continue;
      }
      for (std::size_t e = 0; e < experts.size(); ++e) {
        const auto& expert = *bank->experts[e];
        CHECK(expert.a.gradient().defined() == expert.a.trainable());
        CHECK(expert.b.gradient().defined() == expert.b.trainable());
        CAPTURE(e);
        if (expert.a.trainable()) {
          CHECK(close(added_gradient(expert.a, kFill), expected[at + e], gradient_tolerance()));
        }
        if (expert.b.trainable()) {
          CHECK(close(added_gradient(expert.b, kFill), expected[at + experts.size() + e], gradient_tolerance()));
        }
      }
      at += 2 * experts.size();
    }
  }
};

/// One recorded call and its backward pass. `expected` is exact() of the same case.
template <class C>
void check_moe(MoeCase<C>& moe, const std::vector<Values>& expected, bool need_x, bool need_weights,
               perft::HiddenPolicy policy) {
  using P = perft::Param<C>;
  CAPTURE(moe.size.tokens, moe.size.width, moe.size.inner, need_x, need_weights, policy == perft::HiddenPolicy::kSave);
  const OnlyTrained only(moe.trained_names);
  perft::Tape tape;
  perft::Recording recording(tape);
  const Leaf<C> x(tape, moe.x);
  const Leaf<P> w(tape, moe.weights);
  const auto y = perft::moe_experts(need_x ? x.variable : perft::Variable<C>(moe.x),
                                    need_weights ? w.variable : perft::Variable<P>(moe.weights), moe.plan, moe.experts,
                                    std::shared_ptr<const perft::ExpertLora<P>>(moe.lora), policy);
  const bool needed =
      need_x || need_weights || !moe.trained_names.empty() || (moe.lora != nullptr && moe.lora->trainable());
  CHECK(y.needs_gradient() == needed);
  CHECK(tape.size() == (needed ? 1 : 0));
  if (!needed) {
    return;
  }
  CHECK(tape.node(0).name() == "moe_experts");
  CHECK(tape.saved_bytes() == moe.saved_bytes(policy == perft::HiddenPolicy::kSave));
  tape.add_gradient(y.edge(), moe.dy);
  tape.backward();
  const auto dx = tape.template take_gradient<C>(x.edge);
  const auto dw = tape.template take_gradient<P>(w.edge);
  CHECK(dx.defined() == need_x);
  CHECK(dw.defined() == need_weights);
  if (need_x) {
    CHECK(close(values(dx), expected[0], moe.gradient_tolerance()));
  }
  if (need_weights) {
    CHECK(close(values(dw), expected[1], moe.gradient_tolerance()));
  }
  moe.check_parameters(expected);
}

}  // namespace harness

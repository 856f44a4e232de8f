#pragma once
// A second device for tests: host memory whose addresses are shifted, so that whoever reads an element without going
// through host() faults. Every function it has hands host copies to the one that runs on Cpu; what a model needs of a
// device is exactly this list.

#include <cstdint>  // addresses
#include <cstring>  // std::memcpy
#include <memory>   // owners
#include <span>     // ids
#include <utility>  // std::move
#include <vector>   // offsets

#include "perft/ops/add.hpp"
#include "perft/ops/attention.hpp"
#include "perft/ops/clamp.hpp"
#include "perft/ops/columns.hpp"
#include "perft/ops/cross_entropy.hpp"
#include "perft/ops/embedding.hpp"
#include "perft/ops/linear.hpp"
#include "perft/ops/low_rank.hpp"
#include "perft/ops/moe_experts_backward.hpp"
#include "perft/ops/rms_norm.hpp"
#include "perft/ops/rope.hpp"
#include "perft/ops/router_topk.hpp"
#include "perft/ops/swiglu.hpp"
#include "perft/train/adamw.hpp"

namespace toy {

struct Offset {};

constexpr std::uintptr_t kShift = std::uintptr_t{1} << 56;

inline int copies = 0;  // host() calls: the work really passed through this device

}  // namespace toy

namespace perft::inline PERFT_ABI {

template <>
struct DeviceMemory<toy::Offset> {
  static std::shared_ptr<void> allocate(std::size_t bytes) {
    auto memory = DeviceMemory<Cpu>::allocate(bytes);
    auto* shifted = reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(memory.get()) + toy::kShift);
    return {shifted, [memory](void*) {}};
  }
};

template <>
struct DeviceRoutingPlan<toy::Offset> {
  RoutingPlan on_host;

  std::size_t bytes() const { return on_host.bytes(); }
};

template <class P>
struct ExpertLoraBranch<P, toy::Offset> {
  LowRankBank<P, toy::Offset>* bank = nullptr;
  Dropout dropout;

  bool trainable() const { return bank != nullptr && bank->trainable(); }
};

}  // namespace perft::inline PERFT_ABI

namespace toy {

using namespace perft;  // NOLINT: this header stands in for a part of the library

template <class T>
T* real(const T* shifted) {
  return reinterpret_cast<T*>(reinterpret_cast<std::uintptr_t>(shifted) - kShift);
}

template <class T>
Tensor<T> host(const Tensor<T, Offset>& x) {
  if (!x.defined()) {
    return {};
  }
  ++copies;
  Tensor<T> y = Tensor<T>::empty(x.shape());
  std::memcpy(y.mutable_data(), real(x.data()), y.bytes());
  return y;
}

template <class T>
Tensor<T, Offset> device(const Tensor<T>& x) {
  if (!x.defined()) {
    return {};
  }
  Tensor<T, Offset> y = Tensor<T, Offset>::empty(x.shape());
  std::memcpy(real(y.data()), x.data(), x.bytes());
  return y;
}

template <class T>
void assign(Tensor<T, Offset>& to, const Tensor<T>& from) {
  std::memcpy(real(to.data()), from.data(), from.bytes());
}

/// Parameters carry their gradient along; `back` returns what a backward function added to it.
template <class P>
void host(const Parameter<P, Offset>& from, Parameter<P>& to) {
  to.set(from.name(), host(from.value()));
  to.set_trainable(from.trainable());
  if (from.gradient().defined()) {
    to.gradient_accumulator() = host(from.gradient());
  }
}

template <class P>
void back(const Parameter<P>& from, Parameter<P, Offset>& to) {
  if (from.gradient().defined()) {
    assign(to.gradient_accumulator(), from.gradient());
  }
}

template <class P>
Weight<P> host(const Weight<P, Offset>& w) {
  if (w.parameter() == nullptr) {
    return Weight<P>(FrozenMatrix<>(w.name(), real(static_cast<const std::byte*>(w.data())), w.dtype(), w.rows(),
                                    w.cols(), nullptr));
  }
  Weight<P> out(w.name(), Tensor<P>());
  host(*w.parameter(), *out.parameter());
  return out;
}

template <class P>
void back(const Weight<P>& from, const Weight<P, Offset>& to) {
  if (from.parameter() != nullptr) {
    back(*from.parameter(), *to.parameter());
  }
}

template <class P>
LowRankBank<P> host(const LowRankBank<P, Offset>& bank) {
  LowRankBank<P> out{bank.form, bank.in, bank.out, bank.alpha, {}};
  for (const auto& expert : bank.experts) {
    out.experts.push_back(std::make_unique<LowRankExpert<P>>());
    host(expert->a, out.experts.back()->a);
    host(expert->b, out.experts.back()->b);
  }
  return out;
}

template <class P>
void back(const LowRankBank<P>& from, LowRankBank<P, Offset>& to) {
  for (std::int64_t e = 0; e < from.size(); ++e) {
    back(from[e].a, to[e].a);
    back(from[e].b, to[e].b);
  }
}

template <class P>
ExpertTable<P> host(const ExpertTable<P, Offset>& experts) {
  ExpertTable<P> out;
  for (const Expert<P, Offset>& expert : experts) {
    out.push_back({host(expert.gate), host(expert.up), host(expert.down)});
  }
  return out;
}

/// Banks on the host and the branches that point at them.
template <class P>
struct HostLora {
  explicit HostLora(const ExpertLora<P, Offset>* from) : source(from) {
    if (source != nullptr) {
      copy(source->gate, gate, lora.gate);
      copy(source->up, up, lora.up);
      copy(source->down, down, lora.down);
    }
  }

  const ExpertLora<P>* get() const { return source != nullptr ? &lora : nullptr; }

  void give_back() const {
    if (source != nullptr) {
      give_back(gate, source->gate);
      give_back(up, source->up);
      give_back(down, source->down);
    }
  }

  const ExpertLora<P, Offset>* source;
  LowRankBank<P> gate, up, down;
  ExpertLora<P> lora;

 private:
  static void copy(const ExpertLoraBranch<P, Offset>& from, LowRankBank<P>& bank, ExpertLoraBranch<P>& to) {
    if (from.bank != nullptr) {
      bank = host(*from.bank);
      to = {&bank, from.dropout};
    }
  }

  static void give_back(const LowRankBank<P>& from, const ExpertLoraBranch<P, Offset>& to) {
    if (to.bank != nullptr) {
      back(from, *to.bank);
    }
  }
};

// What tape, parameters and models ask for.

template <class T>
Tensor<T, Offset> to_device(const Tensor<T>& x, Offset) {
  return device(x);
}

inline FrozenMatrix<Offset> to_device(const FrozenMatrix<>& matrix, Offset) {
  std::shared_ptr<void> memory = DeviceMemory<Offset>::allocate(matrix.bytes());
  std::memcpy(real(static_cast<std::byte*>(memory.get())), matrix.data(), matrix.bytes());
  return {matrix.name(), memory.get(), matrix.dtype(), matrix.rows(), matrix.cols(), memory};
}

template <class T>
Tensor<T> to_host(const Tensor<T, Offset>& x) {
  return host(x);
}

template <class P>
Tensor<P, Offset> widened_copy(const FrozenMatrix<Offset>& m) {
  const auto* bytes = real(static_cast<const std::byte*>(m.data()));
  return device(perft::widened_copy<P>(FrozenMatrix<>(m.name(), bytes, m.dtype(), m.rows(), m.cols(), nullptr)));
}

template <class T>
void accumulate(Tensor<T, Offset>& sum, const Tensor<T, Offset>& x) {
  Tensor<T> total = host(sum);
  perft::accumulate(total, host(x));
  assign(sum, total);
}

template <class T>
Tensor<T, Offset> copy_of(const Tensor<T, Offset>& x) {
  return device(host(x));
}

template <class T>
Tensor<T, Offset> zeros_like(const Tensor<T, Offset>& x) {
  return device(Tensor<T>::zeros(x.shape()));
}

// The optimiser.

template <class P>
void adamw_update(const std::vector<AdamWItem<P, Offset>>& items) {
  for (const AdamWItem<P, Offset>& item : items) {
    Tensor<P> value = host(*item.value), m = host(*item.m), v = host(*item.v);
    const Tensor<P> gradient = host(*item.gradient);
    perft::adamw_update(std::vector<AdamWItem<P>>{{&value, &gradient, &m, &v, item.factors}});
    assign(*item.value, value);
    assign(*item.m, m);
    assign(*item.v, v);
  }
}

template <class P>
double sum_of_squares(const std::vector<const Tensor<P, Offset>*>& tensors) {
  std::vector<Tensor<P>> on_host;
  std::vector<const Tensor<P>*> pointers;
  on_host.reserve(tensors.size());
  for (const Tensor<P, Offset>* tensor : tensors) {
    on_host.push_back(host(*tensor));
    pointers.push_back(&on_host.back());
  }
  return perft::sum_of_squares(pointers);
}

// Ops.

template <class To, class From>
Tensor<To, Offset> cast_forward(const Tensor<From, Offset>& x) {
  return device(perft::cast_forward<To>(host(x)));
}

template <ComputeType C, class B>
Tensor<C, Offset> add_forward(const Tensor<C, Offset>& x, const Tensor<B, Offset>& y) {
  return device(perft::add_forward(host(x), host(y)));
}

template <ComputeType C>
Tensor<C, Offset> clamp_forward(const Tensor<C, Offset>& x, double limit) {
  return device(perft::clamp_forward(host(x), limit));
}

template <ComputeType C>
Tensor<C, Offset> clamp_backward(const Tensor<C, Offset>& dy, const Tensor<C, Offset>& x, double limit) {
  return device(perft::clamp_backward(host(dy), host(x), limit));
}

template <ComputeType C>
Tensor<C, Offset> swiglu_forward(const Tensor<C, Offset>& gate, const Tensor<C, Offset>& up) {
  return device(perft::swiglu_forward(host(gate), host(up)));
}

template <ComputeType C>
SwigluGradients<C, Offset> swiglu_backward(const Tensor<C, Offset>& da, const Tensor<C, Offset>& gate,
                                           const Tensor<C, Offset>& up) {
  const auto out = perft::swiglu_backward(host(da), host(gate), host(up));
  return {device(out.dgate), device(out.dup)};
}

template <ComputeType C, class P>
RmsNormOutput<C, Offset> rms_norm_forward(const Tensor<C, Offset>& x, const Tensor<P, Offset>& w, double eps) {
  const auto out = perft::rms_norm_forward(host(x), host(w), eps);
  return {device(out.y), device(out.inverse)};
}

template <ComputeType C, class P>
Tensor<C, Offset> rms_norm_backward_input(const Tensor<C, Offset>& dy, const Tensor<C, Offset>& x,
                                          const Tensor<P, Offset>& w, const Tensor<P, Offset>& inverse) {
  return device(perft::rms_norm_backward_input(host(dy), host(x), host(w), host(inverse)));
}

template <ComputeType C, class P>
void rms_norm_backward_weight(const Tensor<C, Offset>& dy, const Tensor<C, Offset>& x, const Tensor<P, Offset>& inverse,
                              Tensor<P, Offset>& dw) {
  Tensor<P> sum = host(dw);
  perft::rms_norm_backward_weight(host(dy), host(x), host(inverse), sum);
  assign(dw, sum);
}

template <class Out, ComputeType C>
Tensor<Out, Offset> linear_forward(const Tensor<C, Offset>& x, const Weight<Param<C>, Offset>& w,
                                   Precision precision = Precision::kCompute) {
  return device(perft::linear_forward<Out>(host(x), host(w), precision));
}

template <ComputeType C, class Out>
Tensor<C, Offset> linear_backward_input(const Tensor<Out, Offset>& dy, const Weight<Param<C>, Offset>& w,
                                        Precision precision) {
  return device(perft::linear_backward_input<C>(host(dy), host(w), precision));
}

template <class Out, ComputeType C>
void linear_backward_weight(const Tensor<Out, Offset>& dy, const Tensor<C, Offset>& x, Parameter<Param<C>, Offset>& w,
                            Precision precision) {
  Parameter<Param<C>> own;
  host(w, own);
  perft::linear_backward_weight(host(dy), host(x), own, precision);
  back(own, w);
}

template <ComputeType C>
Tensor<C, Offset> embedding_forward(std::span<const std::int32_t> ids, const Weight<Param<C>, Offset>& w) {
  return device(perft::embedding_forward<C>(ids, host(w)));
}

template <ComputeType C>
void embedding_backward(const Tensor<C, Offset>& dy, std::span<const std::int32_t> ids, std::int32_t padding_id,
                        Parameter<Param<C>, Offset>& w) {
  Parameter<Param<C>> own;
  host(w, own);
  perft::embedding_backward(host(dy), ids, padding_id, own);
  back(own, w);
}

template <ComputeType C>
Tensor<C, Offset> rope_forward(const Tensor<C, Offset>& x, const RopeTable<Param<C>, Offset>& table,
                               Param<C> direction = 1) {
  const RopeTable<Param<C>> own{host(table.cosine), host(table.sine)};
  return device(perft::rope_forward(host(x), own, direction));
}

template <ComputeType C>
AttentionOutput<C, Offset> attention_forward(const Tensor<C, Offset>& q, const Tensor<C, Offset>& k,
                                             const Tensor<C, Offset>& v, const std::vector<Segment>& segments,
                                             const AttentionShape& shape) {
  const auto out = perft::attention_forward(host(q), host(k), host(v), segments, shape);
  return {device(out.o), device(out.lse)};
}

template <ComputeType C>
AttentionGradients<C, Offset> attention_backward(const Tensor<C, Offset>& d_o, const Tensor<C, Offset>& q,
                                                 const Tensor<C, Offset>& k, const Tensor<C, Offset>& v,
                                                 const AttentionOutput<C, Offset>& forward,
                                                 const std::vector<Segment>& segments, const AttentionShape& shape) {
  const AttentionOutput<C> own{host(forward.o), host(forward.lse)};
  const auto out = perft::attention_backward(host(d_o), host(q), host(k), host(v), own, segments, shape);
  return {device(out.dq), device(out.dk), device(out.dv)};
}

template <class P>
RouterTopk<P, Offset> router_topk_forward(const Tensor<P, Offset>& logits, std::int64_t top_k, bool renormalise,
                                          const Tensor<std::int32_t, Offset>& replay) {
  const auto out = perft::router_topk_forward(host(logits), top_k, renormalise, host(replay));
  return {device(out.probabilities), device(out.weights), device(out.ids)};
}

template <class P>
Tensor<P, Offset> router_topk_backward(const Tensor<P, Offset>& dweights, const RouterTopk<P, Offset>& forward,
                                       bool renormalise, const LoadBalance* balance,
                                       std::span<const std::uint8_t> real) {
  const RouterTopk<P> own{host(forward.probabilities), host(forward.weights), host(forward.ids)};
  return device(perft::router_topk_backward(host(dweights), own, renormalise, balance, real));
}

template <class P>
void add_routing(LoadBalance& balance, const Tensor<P, Offset>& probabilities, const Tensor<std::int32_t, Offset>& ids,
                 std::span<const std::uint8_t> real) {
  perft::add_routing(balance, host(probabilities), host(ids), real);
}

inline DeviceRoutingPlan<Offset> make_routing_plan(const Tensor<std::int32_t, Offset>& ids, std::int64_t experts) {
  return {perft::make_routing_plan(host(ids), experts)};
}

template <class P>
Tensor<P, Offset> first_columns_forward(const Tensor<P, Offset>& x, std::int64_t count) {
  return device(perft::first_columns_forward(host(x), count));
}

template <class P>
Tensor<P, Offset> first_columns_backward(const Tensor<P, Offset>& dy, std::int64_t width) {
  return device(perft::first_columns_backward(host(dy), width));
}

template <ComputeType C>
LowRankOutput<Param<C>, Offset> low_rank_forward(const Tensor<C, Offset>& x, const LowRankPlan<Param<C>, Offset>& plan,
                                                 const LowRankBank<Param<C>, Offset>& bank, const Dropout& dropout) {
  const LowRankPlan<Param<C>> own{host(plan.ids), host(plan.weights)};
  const auto out = perft::low_rank_forward(host(x), own, host(bank), dropout);
  return {device(out.y), device(out.z)};
}

template <ComputeType C>
LowRankGradients<C, Offset> low_rank_backward(const Tensor<Param<C>, Offset>& dy, const Tensor<C, Offset>& x,
                                              const LowRankPlan<Param<C>, Offset>& plan,
                                              LowRankBank<Param<C>, Offset>& bank, const Tensor<Param<C>, Offset>& z,
                                              const Dropout& dropout, bool need_dx, bool need_dweights) {
  const LowRankPlan<Param<C>> own{host(plan.ids), host(plan.weights)};
  LowRankBank<Param<C>> own_bank = host(bank);
  const auto out = perft::low_rank_backward(host(dy), host(x), own, own_bank, host(z), dropout, need_dx, need_dweights);
  back(own_bank, bank);
  return {device(out.dx), device(out.dweights)};
}

template <ComputeType C>
MoeForward<C, Offset> moe_experts_forward(const Tensor<C, Offset>& x, const Tensor<Param<C>, Offset>& weights,
                                          const DeviceRoutingPlan<Offset>& plan,
                                          const ExpertTable<Param<C>, Offset>& experts,
                                          const ExpertLora<Param<C>, Offset>* lora, bool keep_hidden) {
  const HostLora<Param<C>> own(lora);
  const auto out =
      perft::moe_experts_forward(host(x), host(weights), plan.on_host, host(experts), own.get(), keep_hidden);
  return {device(out.y), device(out.hidden), {device(out.lora.gate), device(out.lora.up), device(out.lora.down)}};
}

template <ComputeType C>
MoeGradients<C, Offset> moe_experts_backward(const Tensor<Param<C>, Offset>& dy, const Tensor<C, Offset>& x,
                                             const Tensor<Param<C>, Offset>& weights,
                                             const DeviceRoutingPlan<Offset>& plan,
                                             const ExpertTable<Param<C>, Offset>& experts,
                                             const ExpertLora<Param<C>, Offset>* lora,
                                             const ExpertLoraState<Param<C>, Offset>& state, Tensor<C, Offset> hidden,
                                             bool need_dx, bool need_dweights) {
  const HostLora<Param<C>> own(lora);
  const ExpertTable<Param<C>> own_experts = host(experts);
  const ExpertLoraState<Param<C>> own_state{host(state.gate), host(state.up), host(state.down)};
  const auto out = perft::moe_experts_backward(host(dy), host(x), host(weights), plan.on_host, own_experts, own.get(),
                                               own_state, host(hidden), need_dx, need_dweights);
  own.give_back();
  for (std::size_t e = 0; e < experts.size(); ++e) {
    back(own_experts[e].gate, experts[e].gate);
    back(own_experts[e].up, experts[e].up);
    back(own_experts[e].down, experts[e].down);
  }
  return {device(out.dx), device(out.dweights)};
}

template <ComputeType C>
CrossEntropyOutput<C, Offset> cross_entropy_forward(const Tensor<C, Offset>& h, const Weight<Param<C>, Offset>& head,
                                                    const ScoredTargets& scored, double scale, bool need_dh) {
  auto out = perft::cross_entropy_forward(host(h), host(head), scored, scale, need_dh);
  return {out.loss, std::move(out.nll), device(out.value), device(out.dh)};
}

template <ComputeType C>
Tensor<C, Offset> cross_entropy_backward(const Tensor<Param<C>, Offset>& seed, const Tensor<C, Offset>& h,
                                         const Weight<Param<C>, Offset>& head, Parameter<Param<C>, Offset>& trained,
                                         const ScoredTargets& scored, double scale, bool need_dh) {
  const Weight<Param<C>> own = host(head);
  const auto dh = perft::cross_entropy_backward(host(seed), host(h), own, *own.parameter(), scored, scale, need_dh);
  back(*own.parameter(), trained);
  return device(dh);
}

template <ComputeType C>
Tensor<C, Offset> scaled_hidden_gradient(const Tensor<Param<C>, Offset>& seed, const Tensor<Param<C>, Offset>& dh) {
  return device(perft::scaled_hidden_gradient<C>(host(seed), host(dh)));
}

}  // namespace toy

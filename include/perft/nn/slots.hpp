#pragma once
// The seams an adapter attaches to. A model holds slots; attaching replaces what is in them by a decorator around it.

#include <memory>  // slot contents
#include <string>  // paths

#include "perft/autograd/weight.hpp"
#include "perft/nn/context.hpp"
#include "perft/ops/routing_plan.hpp"

namespace perft::inline PERFT_ABI {

template <ComputeType C, class Device = Cpu>
class LinearSlot;
template <ComputeType C, class Device = Cpu>
class ExpertsSlot;
template <ComputeType C, class Device = Cpu>
class MoeBlock;

/// Walks a model. Every module lists its members once, in visit(); loading, listing, training, saving, attaching and
/// detaching are visitors. `path` of a slot is where it hangs: "model.layers.3.self_attn.q_proj", "model.layers.3.mlp".
template <ComputeType C, class Device = Cpu>
class Visitor {
 public:
  virtual ~Visitor() = default;

  virtual void weight(Weight<Param<C>, Device>&) {}  // a matrix, frozen or trained

  virtual void parameter(Parameter<Param<C>, Device>&) {}  // a vector

  // An adapter's own matrices: what its files hold, trained or not. Whoever does not tell them from the base's sees
  // them as the above.
  virtual void adapter_weight(Weight<Param<C>, Device>& adapter) { weight(adapter); }

  virtual void adapter_parameter(Parameter<Param<C>, Device>& adapter) { parameter(adapter); }

  virtual void linear_slot(const std::string& /*path*/, std::unique_ptr<LinearSlot<C, Device>>&) {}

  virtual void experts_slot(const std::string& /*path*/, std::unique_ptr<ExpertsSlot<C, Device>>&) {}

  virtual void moe_slot(const std::string& /*path*/, std::unique_ptr<MoeBlock<C, Device>>&) {}
};

/// A linear map [T, in] -> [T, out]. `forward` rounds once to C; `forward_unrounded` leaves that to whoever adds to it.
template <ComputeType C, class Device>
class LinearSlot {
 public:
  virtual ~LinearSlot() = default;
  virtual Variable<C, Device> forward(const Variable<C, Device>& x, ForwardContext<C, Device>& context) = 0;
  virtual Variable<Param<C>, Device> forward_unrounded(const Variable<C, Device>& x,
                                                       ForwardContext<C, Device>& context) = 0;
  virtual std::int64_t in() const = 0;
  virtual std::int64_t out() const = 0;
  virtual void visit(Visitor<C, Device>& visitor) = 0;

  /// Whether this is a decorator. A slot carries one at most: two would share parameter names and dropout.
  virtual bool adapted() const { return false; }

  /// A decorator gives back what it wraps; null if it is no decorator.
  virtual std::unique_ptr<LinearSlot<C, Device>> release_base() { return nullptr; }
};

/// The routed experts of a block: x [T, D], weights [T, K], plan -> y [T, D], not rounded.
template <ComputeType C, class Device>
class ExpertsSlot {
 public:
  virtual ~ExpertsSlot() = default;
  virtual Variable<Param<C>, Device> forward(const Variable<C, Device>& x, const Variable<Param<C>, Device>& weights,
                                             std::shared_ptr<const DeviceRoutingPlan<Device>> plan,
                                             ForwardContext<C, Device>& context) = 0;
  virtual const ExpertTable<Param<C>, Device>& table() const = 0;
  virtual void visit(Visitor<C, Device>& visitor) = 0;

  virtual bool adapted() const { return false; }

  virtual std::unique_ptr<ExpertsSlot<C, Device>> release_base() { return nullptr; }
};

/// What an adapter must know of the block it hangs on.
struct MoeShape {
  std::int64_t width = 0;    // D
  std::int64_t experts = 0;  // N
  std::int64_t top_k = 0;    // K
  bool renormalise = false;
};

template <ComputeType C, class Device = Cpu>
struct MoeOutput {
  Variable<Param<C>, Device> y;       // [T, D], not rounded
  Routing<Param<C>, Device> routing;  // the base router's decision
};

/// The mixture-of-experts half of a decoder layer (after its norm, before the residual add).
template <ComputeType C, class Device>
class MoeBlock {
 public:
  virtual ~MoeBlock() = default;
  virtual MoeOutput<C, Device> forward(const Variable<C, Device>& x, ForwardContext<C, Device>& context) = 0;
  virtual MoeShape shape() const = 0;
  virtual void visit(const std::string& path, Visitor<C, Device>& visitor) = 0;

  virtual bool adapted() const { return false; }

  virtual std::unique_ptr<MoeBlock<C, Device>> release_base() { return nullptr; }
};

}  // namespace perft::inline PERFT_ABI

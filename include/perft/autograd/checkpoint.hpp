#pragma once
// Recomputation: run a segment without recording it, keep only its input, and run it again when its gradient is wanted.

#include <memory>       // nodes
#include <string_view>  // node name
#include <utility>      // std::move

#include "perft/autograd/variable.hpp"

namespace perft::inline PERFT_ABI {

/// Saves the segment's input and the callable. `run(x, recomputing)` must give the same values both times: dropout is
/// counter-based, and routers replay the choices of the first pass.
template <class T, class Device, class Run>
class CheckpointNode final : public Node {
 public:
  CheckpointNode(Edge x_edge, Edge y_edge, Tensor<T, Device> x, Run run)
      : x_edge_(x_edge), y_edge_(y_edge), x_(std::move(x)), run_(std::move(run)) {}

  std::string_view name() const override { return "checkpoint"; }

  std::size_t saved_bytes() const override { return x_.bytes(); }

  void backward(Tape& tape) override {
    Tensor<T, Device> dy = tape.take_gradient<T, Device>(y_edge_);
    if (!dy.defined()) {
      return;
    }
    Tape inner;
    Recording recording(inner);
    const Variable<T, Device> x = x_edge_.needed() ? leaf(inner, x_) : Variable<T, Device>(x_);
    const Edge x_inner = x.edge();
    const Variable<T, Device> y = run_(x, true);
    inner.add_gradient(y.edge(), std::move(dy));
    inner.backward();
    if (x_inner.needed()) {
      Tensor<T, Device> dx = inner.take_gradient<T, Device>(x_inner);
      if (dx.defined()) {
        tape.add_gradient(x_edge_, std::move(dx));
      }
    }
  }

 private:
  Edge x_edge_;
  Edge y_edge_;
  Tensor<T, Device> x_;
  Run run_;
};

/// y = run(x, false) with nothing recorded inside. `trains`: the segment holds trainable parameters, so it must be run
/// again even if x needs no gradient. What `run` refers to must outlive the tape.
template <class T, class Device, class Run>
Variable<T, Device> checkpoint(const Variable<T, Device>& x, bool trains, Run run) {
  Variable<T, Device> y;
  {
    NoRecording pause;
    y = run(Variable<T, Device>(x.value()), false);
  }
  return differentiable(y.value(), x.needs_gradient() || trains, [&](Edge y_edge) {
    return std::make_unique<CheckpointNode<T, Device, Run>>(x.edge(), y_edge, x.value(), std::move(run));
  });
}

}  // namespace perft::inline PERFT_ABI

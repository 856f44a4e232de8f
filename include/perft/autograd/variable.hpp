#pragma once
// Variable: a tensor plus the tape slot its gradient arrives in, if anybody wants that gradient.

#include <cstdint>  // epochs
#include <memory>   // recipes
#include <utility>  // std::move

#include "perft/autograd/saved.hpp"
#include "perft/autograd/tape.hpp"
#include "perft/core/tensor.hpp"

namespace perft::inline PERFT_ABI {

/// With no recording in progress, or below the lowest trainable tensor, a Variable is just its tensor.
template <class T, class Device = Cpu>
class Variable {
 public:
  Variable() = default;

  Variable(Tensor<T, Device> value)
      : value_(std::move(value)) {}  // NOLINT: a constant is a Variable nobody differentiates

  Variable(Tensor<T, Device> value, const Tape& tape, Edge edge)
      : value_(std::move(value)), edge_(edge), epoch_(tape.epoch()) {}

  const Tensor<T, Device>& value() const { return value_; }

  const Shape& shape() const { return value_.shape(); }

  bool defined() const { return value_.defined(); }

  bool needs_gradient() const { return edge_.needed() && Tape::current() != nullptr; }

  /// This variable with a recipe: nodes that save it keep that instead of the value.
  Variable formed_by(std::shared_ptr<const Recipe<T, Device>> recipe) const {
    Variable v = *this;
    v.recipe_ = std::move(recipe);
    return v;
  }

  /// Null unless formed_by() gave one.
  const std::shared_ptr<const Recipe<T, Device>>& recipe() const { return recipe_; }

  /// What a node that needs the value in its backward keeps.
  Saved<T, Device> saved() const { return recipe_ ? Saved<T, Device>(recipe_) : Saved<T, Device>(value_); }

  /// The edge a node keeps; throws ValueError if this variable belongs to a recording that is over.
  Edge edge() const {
    if (!needs_gradient()) {
      return {};
    }
    check<ValueError>(epoch_ == Tape::current()->epoch(),
                      "variable: it was recorded on a tape that has since been cleared; run the forward pass again");
    return edge_;
  }

 private:
  Tensor<T, Device> value_;
  std::shared_ptr<const Recipe<T, Device>> recipe_;
  Edge edge_;
  std::uint64_t epoch_ = 0;
};

/// A leaf whose gradient the caller will take from `tape` after backward (inputs of a recomputed segment, tests).
template <class T, class Device>
Variable<T, Device> leaf(Tape& tape, Tensor<T, Device> value) {
  return {std::move(value), tape, tape.new_slot()};
}

/// Wraps an op's result: if any of its inputs needs a gradient, `make_node(output_edge)` builds the node that is
/// recorded.
template <class T, class Device, class MakeNode>
Variable<T, Device> differentiable(Tensor<T, Device> value, bool needed, MakeNode&& make_node) {
  Tape* tape = Tape::current();
  if (tape == nullptr || !needed) {
    return value;
  }
  const Edge output = tape->new_slot();
  tape->record(make_node(output));
  return {std::move(value), *tape, output};
}

}  // namespace perft::inline PERFT_ABI

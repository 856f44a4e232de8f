#pragma once
// What a node keeps of an input for its backward: the tensor, or a recipe that forms it again from what is kept anyway.

#include <cstddef>  // std::size_t
#include <memory>   // recipes are shared
#include <utility>  // std::move

#include "perft/core/tensor.hpp"

namespace perft::inline PERFT_ABI {

/// The way back to a tensor of the forward pass, with the same bits: a cheap op's result whose input another node
/// keeps.
template <class T, class Device = Cpu>
class Recipe {
 public:
  virtual ~Recipe() = default;

  virtual Tensor<T, Device> form() const = 0;

  /// form(), once for all nodes that share the recipe: the tensor goes with the last of them.
  const Tensor<T, Device>& get() const {
    if (!formed_.defined()) {
      formed_ = form();
    }
    return formed_;
  }

 private:
  mutable Tensor<T, Device> formed_;
};

/// A tensor or a recipe; a default-constructed one holds nothing.
template <class T, class Device = Cpu>
class Saved {
 public:
  Saved() = default;

  Saved(Tensor<T, Device> tensor) : tensor_(std::move(tensor)) {}  // NOLINT: the plain case

  explicit Saved(std::shared_ptr<const Recipe<T, Device>> recipe) : recipe_(std::move(recipe)) {}

  /// What is kept on its behalf; a recipe's ingredients are counted by the node that keeps them.
  std::size_t bytes() const { return tensor_.bytes(); }

  const Tensor<T, Device>& get() const { return recipe_ ? recipe_->get() : tensor_; }

 private:
  Tensor<T, Device> tensor_;
  std::shared_ptr<const Recipe<T, Device>> recipe_;
};

/// A recipe from a callable that returns the tensor.
template <class T, class Device, class Form>
std::shared_ptr<const Recipe<T, Device>> make_recipe(Form form) {
  struct Made final : Recipe<T, Device> {
    explicit Made(Form f) : run(std::move(f)) {}

    Tensor<T, Device> form() const override { return run(); }

    Form run;
  };

  return std::make_shared<const Made>(std::move(form));
}

}  // namespace perft::inline PERFT_ABI

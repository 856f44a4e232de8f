#pragma once
// The tape: an append-only list of typed nodes. Creation order is topological order, so backward is a loop from the
// end, and each node is destroyed as soon as it has run: saved activations are freed last-in-first-out.

#include <atomic>       // epochs
#include <cstddef>      // std::size_t
#include <cstdint>      // slots
#include <memory>       // node ownership
#include <string_view>  // node names
#include <utility>      // std::move
#include <vector>       // nodes and slots

#include "perft/autograd/device_functions.hpp"
#include "perft/core/accumulate.hpp"
#include "perft/core/error.hpp"
#include "perft/core/tensor.hpp"

namespace perft::inline PERFT_ABI {

class Tape;

/// One recorded operation. It keeps the edges to its inputs and exactly what its backward needs, nothing else.
class Node {
 public:
  virtual ~Node() = default;
  virtual std::string_view name() const = 0;
  /// Bytes of activations kept alive for backward (tensors the node holds; parameters and mapped weights do not count).
  virtual std::size_t saved_bytes() const = 0;
  /// Takes the gradients of its outputs from the tape, adds those of its needed inputs.
  virtual void backward(Tape& tape) = 0;
};

/// An input whose gradient is wanted (slot ≥ 0) or not.
struct Edge {
  std::int32_t slot = -1;

  bool needed() const { return slot >= 0; }
};

class Tape {
 public:
  Tape() = default;
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  /// The tape that operations on this thread record to; null when nothing is recorded.
  static Tape*& current() {
    thread_local Tape* tape = nullptr;
    return tape;
  }

  /// Distinguishes recordings: a Variable of an earlier one is stale and is refused.
  std::uint64_t epoch() const { return epoch_; }

  Edge new_slot() {
    if (finished_) {
      clear();
    }
    slots_.emplace_back();
    return {static_cast<std::int32_t>(slots_.size()) - 1};
  }

  void record(std::unique_ptr<Node> node) { nodes_.push_back(std::move(node)); }

  /// Adds a gradient to an edge; a no-op if it is not needed. The first gradient is kept without copying; the next is
  /// added in place if nobody else holds the first, else into a copy. A device needs
  /// accumulate() and copy_of().
  template <class T, class Device>
  void add_gradient(Edge edge, Tensor<T, Device> gradient) {
    if (!edge.needed()) {
      return;
    }
    auto& slot = slots_[static_cast<std::size_t>(edge.slot)];
    if (!slot) {
      slot = std::make_unique<Slot<T, Device>>(std::move(gradient));
      return;
    }
    Tensor<T, Device>& sum = typed<T, Device>(*slot);
    if (!sum.unique() || !sum.contiguous()) {
      if (gradient.unique() && gradient.contiguous()) {
        std::swap(sum, gradient);
      } else {
        sum = copy_of(sum);
      }
    }
    accumulate(sum, gradient.contiguous() ? gradient : copy_of(gradient));
  }

  /// The gradient that reached an edge, or an undefined tensor if none did. Leaves the slot empty.
  template <class T, class Device = Cpu>
  Tensor<T, Device> take_gradient(Edge edge) {
    if (!edge.needed() || !slots_[static_cast<std::size_t>(edge.slot)]) {
      return {};
    }
    auto slot = std::move(slots_[static_cast<std::size_t>(edge.slot)]);
    return std::move(typed<T, Device>(*slot));
  }

  /// Runs every node once, newest first. Seed the outputs with add_gradient before; take the gradients of leaves after.
  /// Variables of this recording are stale from now on. If a node throws, the tape is emptied.
  void backward() {
    try {
      while (!nodes_.empty()) {
        const std::unique_ptr<Node> node = std::move(nodes_.back());
        nodes_.pop_back();
        node->backward(*this);
      }
    } catch (...) {
      clear();
      throw;
    }
    epoch_ = next_epoch();
    finished_ = true;
  }

  void clear() {
    while (!nodes_.empty()) {
      nodes_.pop_back();
    }
    slots_.clear();
    epoch_ = next_epoch();
    finished_ = false;
  }

  std::size_t size() const { return nodes_.size(); }

  const Node& node(std::size_t i) const { return *nodes_[i]; }

  /// Sum over all nodes.
  std::size_t saved_bytes() const {
    std::size_t total = 0;
    for (const auto& node : nodes_) {
      total += node->saved_bytes();
    }
    return total;
  }

 private:
  struct SlotBase {
    virtual ~SlotBase() = default;
  };

  template <class T, class Device>
  struct Slot final : SlotBase {
    explicit Slot(Tensor<T, Device> g) : gradient(std::move(g)) {}

    Tensor<T, Device> gradient;
  };

  template <class T, class Device>
  static Tensor<T, Device>& typed(SlotBase& slot) {
    auto* typed_slot = dynamic_cast<Slot<T, Device>*>(&slot);
    check(typed_slot != nullptr, "tape: a gradient's element type or device differs from its variable's");
    return typed_slot->gradient;
  }

  /// One counter for all threads: two tapes never share an epoch, whoever made them.
  static std::uint64_t next_epoch() {
    static std::atomic<std::uint64_t> counter{0};
    return ++counter;
  }

  std::vector<std::unique_ptr<Node>> nodes_;
  std::vector<std::unique_ptr<SlotBase>> slots_;
  std::uint64_t epoch_ = next_epoch();
  bool finished_ = false;  // backward has run; slots still hold the leaves' gradients
};

/// Records to `tape` while in scope.
class Recording {
 public:
  explicit Recording(Tape& tape) : previous_(Tape::current()) { Tape::current() = &tape; }

  ~Recording() { Tape::current() = previous_; }

  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

 private:
  Tape* previous_;
};

/// Records nothing while in scope.
class NoRecording {
 public:
  NoRecording() : previous_(Tape::current()) { Tape::current() = nullptr; }

  ~NoRecording() { Tape::current() = previous_; }

  NoRecording(const NoRecording&) = delete;
  NoRecording& operator=(const NoRecording&) = delete;

 private:
  Tape* previous_;
};

}  // namespace perft::inline PERFT_ABI

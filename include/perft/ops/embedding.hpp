#pragma once
// Token embedding: rows of a matrix.

#include <cstddef>      // std::byte
#include <cstdint>      // ids
#include <memory>       // nodes
#include <span>         // ids
#include <string_view>  // node name
#include <vector>       // saved ids

#include "perft/autograd/variable.hpp"
#include "perft/autograd/weight.hpp"
#include "perft/core/parallel.hpp"
#include "perft/core/vec/bytes.hpp"
#include "perft/ops/rows.hpp"

namespace perft::inline PERFT_ABI {

/// y[t] = W[ids[t]], rounded to C. ids [T] in [0, V), W [V, D] in any storage format -> y [T, D] C.
/// Throws ValueError naming the position of an id outside the vocabulary.
template <ComputeType C>
Tensor<C> embedding_forward(std::span<const std::int32_t> ids, const Weight<Param<C>>& w) {
  using P = Param<C>;
  const std::int64_t width = w.cols();
  for (std::size_t t = 0; t < ids.size(); ++t) {
    check<ValueError>(ids[t] >= 0 && ids[t] < w.rows(), "embedding: token ", t, " has id ", ids[t], ", expected [0, ",
                      w.rows(), ")");
  }
  Tensor<C> y = Tensor<C>::empty({static_cast<std::int64_t>(ids.size()), width});
  C* out = y.mutable_data();
  const auto* bytes = static_cast<const std::byte*>(w.data());
  const std::int64_t row_bytes = width * static_cast<std::int64_t>(dtype_size(w.dtype()));
  parallel_for(y.size(0), row_grain(width), [&](std::int64_t begin, std::int64_t end) {
    std::vector<P> row(static_cast<std::size_t>(width));
    for (std::int64_t t = begin; t < end; ++t) {
      vec::convert_bytes(bytes + ids[static_cast<std::size_t>(t)] * row_bytes, w.dtype(), row.data(), width);
      store_rounded(row.data(), out + t * width, width);
    }
  });
  return y;
}

/// dW[ids[t]] += dy[t], tokens in order, so repeated ids add deterministically; rows of `padding_id` (−1: none) get
/// nothing (torch.nn.Embedding's padding_idx).
template <ComputeType C>
void embedding_backward(const Tensor<C>& dy, std::span<const std::int32_t> ids, std::int32_t padding_id,
                        Parameter<Param<C>>& w) {
  using P = Param<C>;
  P* dw = w.gradient_accumulator().mutable_data();
  const std::int64_t width = dy.size(1);
  // Threads share out channels, not tokens: no two add into one place.
  parallel_for(width, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = 0; t < dy.size(0); ++t) {
      const std::int32_t id = ids[static_cast<std::size_t>(t)];
      if (id == padding_id) {
        continue;
      }
      for (std::int64_t d = begin; d < end; ++d) {
        dw[id * width + d] += static_cast<P>(dy.data()[t * width + d]);
      }
    }
  });
}

/// Saves the ids; exists only if W is trained.
template <ComputeType C, class Device = Cpu>
class EmbeddingNode final : public Node {
 public:
  EmbeddingNode(Edge y_edge, std::span<const std::int32_t> ids, std::int32_t padding_id, Parameter<Param<C>, Device>& w)
      : y_edge_(y_edge), ids_(ids.begin(), ids.end()), padding_id_(padding_id), w_(w) {}

  std::string_view name() const override { return "embedding"; }

  std::size_t saved_bytes() const override { return ids_.size() * sizeof(std::int32_t); }

  void backward(Tape& tape) override {
    const Tensor<C, Device> dy = tape.take_gradient<C, Device>(y_edge_);
    if (dy.defined()) {
      embedding_backward(dy, ids_, padding_id_, w_);
    }
  }

 private:
  Edge y_edge_;
  std::vector<std::int32_t> ids_;
  std::int32_t padding_id_;
  Parameter<Param<C>, Device>& w_;
};

/// Differentiable embedding_forward; w must outlive the tape.
template <ComputeType C, class Device>
Variable<C, Device> embedding(std::span<const std::int32_t> ids, const Weight<Param<C>, Device>& w,
                              std::int32_t padding_id = -1) {
  return differentiable(embedding_forward<C>(ids, w), w.trained() != nullptr, [&](Edge y_edge) {
    return std::make_unique<EmbeddingNode<C, Device>>(y_edge, ids, padding_id, *w.trained());
  });
}

}  // namespace perft::inline PERFT_ABI

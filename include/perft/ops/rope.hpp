#pragma once
// Rotary position embedding, the rotate-half form of Hugging Face.

#include <algorithm>      // std::copy_n
#include <cmath>          // std::pow, std::cos, std::sin
#include <cstdint>        // positions
#include <memory>         // shared tables
#include <span>           // positions
#include <string_view>    // node name
#include <unordered_map>  // positions already met
#include <vector>         // frequencies

#include "perft/autograd/variable.hpp"
#include "perft/core/parallel.hpp"
#include "perft/ops/rows.hpp"

namespace perft::inline PERFT_ABI {

/// cos and sin of position · theta^(−2i/d) for the tokens of one batch, i in [0, d/2).
template <class P, class Device = Cpu>
struct RopeTable {
  Tensor<P, Device> cosine;  // [T, d/2]
  Tensor<P, Device> sine;    // [T, d/2]
};

/// positions [T] -> tables in P. Frequencies and angles are formed in P: in fp32 transformers forms them in fp32, and
/// at position 4096 that is visible. Source: Su et al. 2021, eq. 34; transformers OlmoeRotaryEmbedding.
template <class P>
RopeTable<P> rope_table(std::span<const std::int32_t> positions, std::int64_t head_dim, double theta) {
  check<ShapeError>(head_dim > 0 && head_dim % 2 == 0, "rope: head dimension ", head_dim, ", expected an even number");
  const std::int64_t half = head_dim / 2;
  const auto tokens = static_cast<std::int64_t>(positions.size());
  RopeTable<P> table{Tensor<P>::empty({tokens, half}), Tensor<P>::empty({tokens, half})};
  std::vector<P> frequencies(static_cast<std::size_t>(half));
  for (std::int64_t i = 0; i < half; ++i) {
    const P exponent = static_cast<P>(2 * i) / static_cast<P>(head_dim);
    frequencies[static_cast<std::size_t>(i)] = P{1} / static_cast<P>(std::pow(theta, static_cast<double>(exponent)));
  }
  // The rows of a batch repeat positions: each is formed for the first token that has it, and copied to the others.
  std::unordered_map<std::int32_t, std::int64_t> first_at;
  std::vector<std::int64_t> source(positions.size());
  std::vector<std::int64_t> distinct;
  for (std::int64_t t = 0; t < tokens; ++t) {
    const auto at = static_cast<std::size_t>(t);
    const auto [entry, added] = first_at.emplace(positions[at], t);
    source[at] = entry->second;
    if (added) {
      distinct.push_back(t);
    }
  }
  P* cosine = table.cosine.mutable_data();
  P* sine = table.sine.mutable_data();
  parallel_for(static_cast<std::int64_t>(distinct.size()), 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t d = begin; d < end; ++d) {
      const std::int64_t t = distinct[static_cast<std::size_t>(d)];
      const P position = static_cast<P>(positions[static_cast<std::size_t>(t)]);
      for (std::int64_t i = 0; i < half; ++i) {
        const auto angle = static_cast<double>(position * frequencies[static_cast<std::size_t>(i)]);
        cosine[t * half + i] = static_cast<P>(std::cos(angle));
        sine[t * half + i] = static_cast<P>(std::sin(angle));
      }
    }
  });
  parallel_for(tokens, row_grain(half), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int64_t from = source[static_cast<std::size_t>(t)];
      if (from != t) {
        std::copy_n(cosine + from * half, half, cosine + t * half);
        std::copy_n(sine + from * half, half, sine + t * half);
      }
    }
  });
  return table;
}

/// For each head's (a, b) = (x[i], x[i + d/2]): y = (a cos − b sin, b cos + a sin).
/// x [T, heads · d] C -> y [T, heads · d] C; heads follows from the shapes. direction −1 rotates back, which is the
/// backward pass. Throws ShapeError if x's width is no multiple of d or its rows are not the table's.
template <ComputeType C>
Tensor<C> rope_forward(const Tensor<C>& x, const RopeTable<Param<C>>& table, Param<C> direction = 1) {
  using P = Param<C>;
  const std::int64_t half = table.cosine.size(1);
  const std::int64_t width = x.rank() == 2 ? x.size(1) : 0;
  check<ShapeError>(x.rank() == 2 && x.contiguous() && x.size(0) == table.cosine.size(0) && width % (2 * half) == 0,
                    "rope: x is ", x.shape(), ", expected contiguous [", table.cosine.size(0), ", multiple of ",
                    2 * half, "]");
  Tensor<C> y = Tensor<C>::empty(x.shape());
  C* out = y.mutable_data();
  parallel_for(x.size(0), row_grain(width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const P* cosine = table.cosine.data() + t * half;
      const P* sine = table.sine.data() + t * half;
      for (std::int64_t h = 0; h < width; h += 2 * half) {
        const C* xt = x.data() + t * width + h;
        C* yt = out + t * width + h;
        for (std::int64_t i = 0; i < half; ++i) {
          const P a = xt[i];
          const P b = xt[i + half];
          const P s = direction * sine[i];
          yt[i] = static_cast<C>(a * cosine[i] - b * s);
          yt[i + half] = static_cast<C>(b * cosine[i] + a * s);
        }
      }
    }
  });
  return y;
}

/// Saves nothing of its own: the table belongs to the batch and is shared by all layers.
template <ComputeType C, class Device = Cpu>
class RopeNode final : public Node {
 public:
  RopeNode(Edge x_edge, Edge y_edge, RopeTable<Param<C>, Device> table)
      : x_edge_(x_edge), y_edge_(y_edge), table_(std::move(table)) {}

  std::string_view name() const override { return "rope"; }

  std::size_t saved_bytes() const override { return 0; }

  void backward(Tape& tape) override {
    const Tensor<C, Device> dy = tape.take_gradient<C, Device>(y_edge_);
    if (dy.defined()) {
      tape.add_gradient(x_edge_, rope_forward(dy, table_, Param<C>{-1}));
    }
  }

 private:
  Edge x_edge_;
  Edge y_edge_;
  RopeTable<Param<C>, Device> table_;
};

/// Differentiable rope_forward. If x can be formed again, so can y.
template <ComputeType C, class Device>
Variable<C, Device> rope(const Variable<C, Device>& x, const RopeTable<Param<C>, Device>& table) {
  const Variable<C, Device> y = differentiable(rope_forward(x.value(), table), x.needs_gradient(), [&](Edge y_edge) {
    return std::make_unique<RopeNode<C, Device>>(x.edge(), y_edge, table);
  });
  if (!x.recipe()) {
    return y;
  }
  return y.formed_by(make_recipe<C, Device>([from = x.recipe(), table] { return rope_forward(from->form(), table); }));
}

}  // namespace perft::inline PERFT_ABI

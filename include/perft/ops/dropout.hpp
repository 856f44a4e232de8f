#pragma once
// Counter-based dropout: a mask is a function of where in the whole batch a number stands, and is never stored.

#include <algorithm>  // std::copy_n, std::min
#include <array>      // counters
#include <cstdint>    // keys
#include <memory>     // nodes, shared columns
#include <string_view>
#include <vector>  // columns

#include "perft/autograd/variable.hpp"
#include "perft/core/error.hpp"
#include "perft/core/parallel.hpp"
#include "perft/core/rng.hpp"
#include "perft/ops/rows.hpp"

namespace perft::inline PERFT_ABI {

/// Which token of the whole (accumulated) batch each token of this micro-batch is. Shared by all dropout sites.
struct TokenKeys {
  std::vector<std::int32_t> row;     // [T] −1 for the padding token
  std::vector<std::int32_t> column;  // [T]
};

/// One dropout site. Inactive (`probability` 0) multiplies by 1. The mask of token t, expert e, channel c depends on
/// (key; row[t], column[t], e, c) alone: not on micro-batching, packing, padding, threads or recomputation.
class Dropout {
 public:
  Dropout() = default;

  Dropout(double probability, PhiloxKey key, std::shared_ptr<const TokenKeys> tokens)
      : probability_(probability), key_(key), tokens_(std::move(tokens)) {
    check<ValueError>(probability >= 0 && probability < 1, "dropout: probability ", probability, ", expected [0, 1)");
    check<ShapeError>(!tokens_ || tokens_->row.size() == tokens_->column.size(), "dropout: keys of ",
                      tokens_ ? tokens_->row.size() : 0, " rows and ", tokens_ ? tokens_->column.size() : 0,
                      " columns, expected one of each per token");
  }

  bool active() const { return probability_ > 0; }

  /// Called once by ops before they ask for the masks of `tokens` tokens: mask_row does not look. Throws ShapeError if
  /// the site is active and its keys are those of another number of tokens.
  void check_tokens(std::int64_t tokens) const {
    const std::size_t keys = tokens_ ? tokens_->row.size() : 0;
    check<ShapeError>(!active() || static_cast<std::int64_t>(keys) == tokens, "dropout: keys of ", keys,
                      " tokens, expected ", tokens);
  }

  /// mask[i] = 0 or 1/(1 − p) for channel first + i, i in [0, n). `expert` separates adapters that read the same token.
  template <class P>
  void mask_row(std::int64_t token, std::int64_t expert, P* mask, std::int64_t n, std::int64_t first = 0) const {
    const auto t = static_cast<std::size_t>(token);
    const std::array<std::uint32_t, 3> counter = {static_cast<std::uint32_t>(tokens_->row[t]),
                                                  static_cast<std::uint32_t>(tokens_->column[t]),
                                                  static_cast<std::uint32_t>(expert)};
    if (const std::int64_t offset = first % 4; offset != 0) {  // a counter gives four channels: start inside its block
      P block[4];
      vec::philox_dropout_row(key_, counter, probability_, 4, block, first - offset);
      const std::int64_t taken = std::min(n, 4 - offset);
      std::copy_n(block + offset, taken, mask);
      mask += taken;
      n -= taken;
      first += taken;
    }
    vec::philox_dropout_row(key_, counter, probability_, n, mask, first);
  }

  /// The key of a site: a 64-bit mix of everything that must give independent masks.
  static PhiloxKey site_key(std::uint64_t seed, std::uint64_t step, std::uint64_t layer, std::uint64_t site) {
    // SplitMix64 finaliser (Steele et al. 2014) over the fields in turn.
    std::uint64_t h = 0;
    for (const std::uint64_t field : {seed, step, layer, site}) {
      h += 0x9E3779B97F4A7C15ULL + field;
      h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9ULL;
      h = (h ^ (h >> 27)) * 0x94D049BB133111EBULL;
      h ^= h >> 31;
    }
    return {static_cast<std::uint32_t>(h), static_cast<std::uint32_t>(h >> 32)};
  }

 private:
  double probability_ = 0;
  PhiloxKey key_;
  std::shared_ptr<const TokenKeys> tokens_;
};

/// y = x ⊙ mask. x [T, D] C -> y [T, D] C. Its own backward: dx = dropout_forward(dy), the same mask. Throws ShapeError
/// if x is no contiguous matrix or the site's keys are of another number of tokens.
template <ComputeType C>
Tensor<C> dropout_forward(const Tensor<C>& x, const Dropout& dropout, std::int64_t expert = 0) {
  using P = Param<C>;
  check<ShapeError>(x.rank() == 2 && x.contiguous(), "dropout: x is ", x.shape(), ", expected a contiguous [T, D]");
  dropout.check_tokens(x.size(0));
  const std::int64_t width = x.size(1);
  Tensor<C> y = Tensor<C>::empty(x.shape());
  C* out = y.mutable_data();
  parallel_for(x.size(0), row_grain(width), [&](std::int64_t begin, std::int64_t end) {
    std::vector<P> mask(static_cast<std::size_t>(width));
    for (std::int64_t t = begin; t < end; ++t) {
      dropout.mask_row(t, expert, mask.data(), width);
      for (std::int64_t d = 0; d < width; ++d) {
        out[t * width + d] =
            static_cast<C>(static_cast<P>(x.data()[t * width + d]) * mask[static_cast<std::size_t>(d)]);
      }
    }
  });
  return y;
}

/// Saves nothing: the mask is recomputed from its counters.
template <ComputeType C, class Device = Cpu>
class DropoutNode final : public Node {
 public:
  DropoutNode(Edge x_edge, Edge y_edge, Dropout dropout, std::int64_t expert)
      : x_edge_(x_edge), y_edge_(y_edge), dropout_(std::move(dropout)), expert_(expert) {}

  std::string_view name() const override { return "dropout"; }

  std::size_t saved_bytes() const override { return 0; }

  void backward(Tape& tape) override {
    const Tensor<C, Device> dy = tape.take_gradient<C, Device>(y_edge_);
    if (dy.defined()) {
      tape.add_gradient(x_edge_, dropout_forward(dy, dropout_, expert_));
    }
  }

 private:
  Edge x_edge_;
  Edge y_edge_;
  Dropout dropout_;
  std::int64_t expert_;
};

/// Differentiable dropout_forward; x itself if the site is inactive.
template <ComputeType C, class Device>
Variable<C, Device> dropout(const Variable<C, Device>& x, const Dropout& site, std::int64_t expert = 0) {
  if (!site.active()) {
    return x;
  }
  return differentiable(dropout_forward(x.value(), site, expert), x.needs_gradient(), [&](Edge y_edge) {
    return std::make_unique<DropoutNode<C, Device>>(x.edge(), y_edge, site, expert);
  });
}

}  // namespace perft::inline PERFT_ABI

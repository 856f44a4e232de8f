#pragma once
// The load-balancing loss, streamed: per expert one count and one sum, never a one-hot tensor.

#include <cstdint>  // counts
#include <span>     // masks
#include <utility>  // std::move
#include <vector>   // per-expert statistics

#include "perft/core/error.hpp"
#include "perft/core/tensor.hpp"

namespace perft::inline PERFT_ABI {

/// aux = N · Σ_e f[e] · P[e], with f[e] = (choices of e) / rows and P[e] = (Σ softmax[e]) / rows, pooled over every
/// real token of every layer; uniform routing gives K, not 1. Gradient flows through P only. Source: transformers
/// load_balancing_loss_func with the 2-D attention mask.
class LoadBalance {
 public:
  explicit LoadBalance(std::int64_t experts)
      : counts_(static_cast<std::size_t>(experts)), sums_(static_cast<std::size_t>(experts)) {}

  /// Adds one layer: probabilities [T, N], ids [T, K], real [T] (1 = counts). Tokens in order, in double: no dependence
  /// on threads. Throws ShapeError if N is another number of experts than before or `real` is not of T tokens.
  template <class P>
  void add(const Tensor<P>& probabilities, const Tensor<std::int32_t>& ids, std::span<const std::uint8_t> real) {
    const std::int64_t experts = probabilities.size(1);
    check<ShapeError>(experts == static_cast<std::int64_t>(sums_.size()), "load_balance: ", experts,
                      " experts, expected ", sums_.size());
    check<ShapeError>(static_cast<std::int64_t>(real.size()) == probabilities.size(0),
                      "load_balance: the mask of real tokens has ", real.size(), " entries, expected ",
                      probabilities.size(0));
    std::vector<std::int64_t> chosen(counts_.size());
    for (std::int64_t t = 0; t < probabilities.size(0); ++t) {
      if (real[static_cast<std::size_t>(t)] == 0) {
        continue;
      }
      ++rows_;
      const P* p = probabilities.data() + t * experts;
      for (std::int64_t e = 0; e < experts; ++e) {
        sums_[static_cast<std::size_t>(e)] += static_cast<double>(p[e]);
      }
      for (std::int64_t s = 0; s < ids.size(1); ++s) {
        ++chosen[static_cast<std::size_t>(ids.data()[t * ids.size(1) + s])];
      }
    }
    add_layer(std::move(chosen));
  }

  /// Adds one layer that a device has counted: its real tokens, and per expert [N] the choices and the probabilities'
  /// sum. Throws ShapeError if N is another number of experts.
  void add(std::int64_t rows, std::span<const std::int64_t> counts, std::span<const double> sums) {
    check<ShapeError>(counts.size() == counts_.size() && sums.size() == sums_.size(), "load_balance: counts of ",
                      counts.size(), " and sums of ", sums.size(), " experts, expected ", sums_.size());
    rows_ += rows;
    for (std::size_t e = 0; e < sums_.size(); ++e) {
      sums_[e] += sums[e];
    }
    add_layer({counts.begin(), counts.end()});
  }

  /// The loss, not multiplied by any coefficient; 0 before a real token was seen.
  double value() const {
    if (rows_ == 0) {
      return 0;
    }
    double sum = 0;
    for (std::size_t e = 0; e < sums_.size(); ++e) {
      sum += static_cast<double>(counts_[e]) * sums_[e];
    }
    return static_cast<double>(sums_.size()) * sum / (static_cast<double>(rows_) * static_cast<double>(rows_));
  }

  /// Sets what one unit of this loss weighs in the total (coefficient × share of the batch); 0 = no gradient.
  void set_weight(double weight) { weight_ = weight; }

  bool has_gradient() const { return weight_ != 0 && rows_ > 0; }

  /// d(weight · aux) / d probability of expert e, the same for every real token.
  double gradient(std::int64_t expert) const {
    const auto e = static_cast<std::size_t>(expert);
    return weight_ * static_cast<double>(sums_.size()) * static_cast<double>(counts_[e]) /
           (static_cast<double>(rows_) * static_cast<double>(rows_));
  }

  std::int64_t experts() const { return static_cast<std::int64_t>(sums_.size()); }

  std::int64_t rows() const { return rows_; }

  std::span<const std::int64_t> counts() const { return counts_; }

  std::span<const double> sums() const { return sums_; }

  /// Choices [N] of every layer, in the order they were added.
  const std::vector<std::vector<std::int64_t>>& layers() const { return layers_; }

 private:
  void add_layer(std::vector<std::int64_t> chosen) {
    for (std::size_t e = 0; e < chosen.size(); ++e) {
      counts_[e] += chosen[e];
    }
    layers_.push_back(std::move(chosen));
  }

  std::vector<std::vector<std::int64_t>> layers_;
  std::vector<std::int64_t> counts_;
  std::vector<double> sums_;
  std::int64_t rows_ = 0;
  double weight_ = 0;
};

/// LoadBalance::add by overload on the device that holds the layer's probabilities [T, N] and ids [T, K].
template <class P>
void add_routing(LoadBalance& balance, const Tensor<P>& probabilities, const Tensor<std::int32_t>& ids,
                 std::span<const std::uint8_t> real) {
  balance.add(probabilities, ids, real);
}

}  // namespace perft::inline PERFT_ABI

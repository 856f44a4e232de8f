#pragma once
// How the routers of a model were used over some steps: choices per layer and expert, and what they say.

#include <algorithm>  // std::count, std::max_element
#include <cmath>      // std::log
#include <cstdint>    // counts
#include <vector>     // layers

#include "perft/core/error.hpp"
#include "perft/ops/load_balance.hpp"

namespace perft::inline PERFT_ABI {

/// The load of one router's experts, added up over real tokens: counts [N], their sum is tokens · K.
struct ExpertLoad {
  std::vector<std::int64_t> counts;

  std::int64_t choices() const {
    std::int64_t sum = 0;
    for (const std::int64_t count : counts) {
      sum += count;
    }
    return sum;
  }

  /// f_e = counts[e] / Σ counts, [N]: they sum to 1. Only after a choice.
  std::vector<double> shares() const {
    const auto total = static_cast<double>(choices());
    std::vector<double> parts;
    for (const std::int64_t count : counts) {
      parts.push_back(static_cast<double>(count) / total);
    }
    return parts;
  }

  /// Entropy of the load, divided by its largest value: −Σ_e f_e ln f_e / ln N. 1: all
  /// experts are chosen equally often; 0: one takes everything. 1 for a single expert or before any choice.
  double entropy() const {
    if (choices() == 0 || counts.size() < 2) {
      return 1;
    }
    double sum = 0;
    for (const double share : shares()) {
      sum -= share > 0 ? share * std::log(share) : 0.0;
    }
    return sum / std::log(static_cast<double>(counts.size()));
  }

  /// Experts that no token chose.
  std::int64_t dead() const { return std::count(counts.begin(), counts.end(), 0); }

  /// The busiest expert's load relative to the mean: 1 is even, N / K is every token.
  double busiest() const {
    const std::int64_t total = choices();
    return total == 0 ? 1
                      : static_cast<double>(*std::max_element(counts.begin(), counts.end())) *
                            static_cast<double>(counts.size()) / static_cast<double>(total);
  }
};

/// The loads of one kind of router (base or adapter) in all layers, over micro-batches and steps.
class RouterUse {
 public:
  /// Adds what one forward pass collected; nothing if `balance` is null. Throws ShapeError if it has another number of
  /// layers or experts than before.
  void add(const LoadBalance* balance) {
    if (balance == nullptr) {
      return;
    }
    if (layers_.empty()) {
      layers_.resize(balance->layers().size());
    }
    check<ShapeError>(layers_.size() == balance->layers().size(), "router use: ", balance->layers().size(),
                      " layers, expected ", layers_.size());
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      add(layers_[l], balance->layers()[l]);
    }
  }

  /// Adds another's loads; the same conditions.
  void add(const RouterUse& other) {
    if (layers_.empty()) {
      layers_ = other.layers_;
      return;
    }
    check<ShapeError>(other.layers_.empty() || layers_.size() == other.layers_.size(),
                      "router use: ", other.layers_.size(), " layers, expected ", layers_.size());
    for (std::size_t l = 0; l < other.layers_.size(); ++l) {
      add(layers_[l], other.layers_[l].counts);
    }
  }

  void clear() { layers_.clear(); }

  bool empty() const { return layers_.empty(); }

  const std::vector<ExpertLoad>& layers() const { return layers_; }

  /// Layers whose router has collapsed: of the N > K experts no more than K are in use, by the load's effective number
  /// of experts exp(entropy) (at most 1.05 K). The adapter's or the base's capacity beside them is wasted, and balance
  /// loss or learning rate are wrong. `top_k` is the router's K.
  std::vector<std::int64_t> collapsed(std::int64_t top_k) const {
    std::vector<std::int64_t> found;
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      const auto experts = static_cast<double>(layers_[l].counts.size());
      const double effective = std::exp(layers_[l].entropy() * std::log(experts));
      if (layers_[l].choices() > 0 && experts > static_cast<double>(top_k) &&
          effective <= 1.05 * static_cast<double>(top_k)) {
        found.push_back(static_cast<std::int64_t>(l));
      }
    }
    return found;
  }

 private:
  static void add(ExpertLoad& load, const std::vector<std::int64_t>& counts) {
    if (load.counts.empty()) {
      load.counts.resize(counts.size());
    }
    check<ShapeError>(load.counts.size() == counts.size(), "router use: ", counts.size(), " experts, expected ",
                      load.counts.size());
    for (std::size_t e = 0; e < counts.size(); ++e) {
      load.counts[e] += counts[e];
    }
  }

  std::vector<ExpertLoad> layers_;
};

}  // namespace perft::inline PERFT_ABI

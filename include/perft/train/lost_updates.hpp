#pragma once
// Which updates of an optimizer step were too small to change the number they belong to.

#include <algorithm>  // std::clamp
#include <cstdint>    // counts
#include <string>     // names
#include <vector>     // values before a step

#include "perft/train/adamw.hpp"

namespace perft::inline PERFT_ABI {

/// The parameter that lost the largest share of its updates.
struct LostShare {
  double share = 0;  // 0 … 1
  std::string name;  // empty: none lost any
};

/// Looks at some elements of each parameter around a step: every 61st, of a small one more. An element whose gradient's
/// running mean m is not 0 was to be moved; if its value is the same afterwards, the update was below half a unit in
/// the last place and is lost: with a bf16 parameter (8 bits) and lr 1e-5 that is nearly all of them, and it learns
/// nothing.
template <class P>
class LostUpdates {
 public:
  static constexpr std::int64_t kFewest = 16;  // updates that say something of a parameter

  /// Remembers the values before the step.
  void before(const AdamW<P>& optimizer) {
    values_.clear();
    for (const Parameter<P>* parameter : optimizer.parameters()) {
      for (std::int64_t i = 0; i < parameter->value().numel(); i += stride(parameter->value().numel())) {
        values_.push_back(parameter->value().data()[i]);
      }
    }
  }

  /// Counts after it (and after whatever rounds the parameters).
  void after(AdamW<P>& optimizer) {
    counts_.resize(optimizer.parameters().size());
    std::size_t at = 0;
    for (std::size_t p = 0; p < optimizer.parameters().size(); ++p) {
      const Tensor<P>& value = optimizer.parameters()[p]->value();
      const Tensor<P>& m = optimizer.state()[p].m;
      for (std::int64_t i = 0; i < value.numel(); i += stride(value.numel()), ++at) {
        if (m.defined() && m.data()[i] != P{0}) {
          ++counts_[p].due;
          counts_[p].lost += value.data()[i] == values_[at] ? 1 : 0;
        }
      }
    }
  }

  /// The worst parameter of the steps since the last call.
  LostShare take(const AdamW<P>& optimizer) {
    LostShare worst;
    for (std::size_t p = 0; p < counts_.size(); ++p) {
      const double share =
          counts_[p].due < kFewest ? 0.0 : static_cast<double>(counts_[p].lost) / static_cast<double>(counts_[p].due);
      if (share > worst.share) {
        worst = {share, optimizer.parameters()[p]->name()};
      }
    }
    counts_.clear();
    return worst;
  }

 private:
  struct Count {
    std::int64_t due = 0;
    std::int64_t lost = 0;
  };

  /// Odd: the columns of a matrix have their turn.
  static std::int64_t stride(std::int64_t elements) { return std::clamp<std::int64_t>(elements / 64, 1, 61) | 1; }

  std::vector<P> values_;
  std::vector<Count> counts_;  // of each parameter
};

}  // namespace perft::inline PERFT_ABI

#pragma once
// Which updates of an optimizer step were too small to change the number they belong to.

#include <cstdint>  // counts
#include <vector>   // values before a step

#include "perft/train/adamw.hpp"

namespace perft::inline PERFT_ABI {

/// Looks at every kEvery-th element of each parameter around a step. An element whose gradient's running mean m is not
/// 0 was to be moved; if its value is the same afterwards, the update was below half a unit in the last place and is
/// lost: with bf16 parameters (8 bits) and lr 1e-5 that is nearly all of them, and the run learns nothing.
template <class P>
class LostUpdates {
 public:
  static constexpr std::int64_t kEvery = 61;  // a prime: all columns of a matrix have their turn

  /// Remembers the values before the step.
  void before(const AdamW<P>& optimizer) {
    values_.clear();
    for (const Parameter<P>* parameter : optimizer.parameters()) {
      for (std::int64_t i = 0; i < parameter->value().numel(); i += kEvery) {
        values_.push_back(parameter->value().data()[i]);
      }
    }
  }

  /// Counts after it (and after whatever rounds the parameters).
  void after(AdamW<P>& optimizer) {
    std::size_t at = 0;
    for (std::size_t p = 0; p < optimizer.parameters().size(); ++p) {
      const Tensor<P>& value = optimizer.parameters()[p]->value();
      const Tensor<P>& m = optimizer.state()[p].m;
      for (std::int64_t i = 0; i < value.numel(); i += kEvery, ++at) {
        if (m.defined() && m.data()[i] != P{0}) {
          ++due_;
          lost_ += value.data()[i] == values_[at] ? 1 : 0;
        }
      }
    }
  }

  /// Lost updates of all due ones since the last call, 0 … 1; 0 if none was due.
  double take_share() {
    const double share = due_ == 0 ? 0.0 : static_cast<double>(lost_) / static_cast<double>(due_);
    due_ = lost_ = 0;
    return share;
  }

 private:
  std::vector<P> values_;
  std::int64_t due_ = 0;
  std::int64_t lost_ = 0;
};

}  // namespace perft::inline PERFT_ABI

#pragma once
// A bank of low-rank experts: the matrices behind every adapter (PERFT experts, LoRA on a linear or on experts).

#include <algorithm>  // std::max
#include <cstdint>    // extents
#include <memory>     // parameters stay in place
#include <vector>     // experts

#include "perft/autograd/parameter.hpp"

namespace perft::inline PERFT_ABI {

/// Δ(x) of one expert: kLora (alpha/r) · B A dropout(x); kParallel W2 · silu(dropout(W1 x)) with A = W1, B = W2.
enum class DeltaForm { kLora, kParallel };

/// One expert. A [r, in] as on disk; B is held transposed, [r, out], so that both products walk contiguous rows
/// (adapter files hold it as [out, r]: see peft/adapter_io.hpp).
template <class P, class Device = Cpu>
struct LowRankExpert {
  Parameter<P, Device> a;
  Parameter<P, Device> b;

  std::int64_t rank() const { return a.value().size(0); }
};

/// Experts may differ in rank. The scale of expert e is alpha / rank(e) (kLora) or 1 (kParallel).
template <class P, class Device = Cpu>
struct LowRankBank {
  DeltaForm form = DeltaForm::kLora;
  std::int64_t in = 0;
  std::int64_t out = 0;
  double alpha = 0;
  std::vector<std::unique_ptr<LowRankExpert<P, Device>>> experts;

  std::int64_t size() const { return static_cast<std::int64_t>(experts.size()); }

  LowRankExpert<P, Device>& operator[](std::int64_t e) { return *experts[static_cast<std::size_t>(e)]; }

  const LowRankExpert<P, Device>& operator[](std::int64_t e) const { return *experts[static_cast<std::size_t>(e)]; }

  P scale(std::int64_t e) const {
    return form == DeltaForm::kLora ? static_cast<P>(alpha / static_cast<double>((*this)[e].rank())) : P{1};
  }

  std::int64_t max_rank() const {
    std::int64_t rank = 0;
    for (const auto& expert : experts) {
      rank = std::max(rank, expert->rank());
    }
    return rank;
  }

  bool trainable() const {
    for (const auto& expert : experts) {
      if (expert->a.trainable() || expert->b.trainable()) {
        return true;
      }
    }
    return false;
  }
};

}  // namespace perft::inline PERFT_ABI

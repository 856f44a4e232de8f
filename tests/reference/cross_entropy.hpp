#pragma once
// The language-model loss: shifted cross-entropy, with transformers' and with our treatment of padding rows.

#include <cstdint>  // labels

#include "reference/router.hpp"

namespace reference {

inline constexpr std::int64_t kIgnored = -100;

/// Which targets count. `hf`: every shifted label that is not -100, whatever the mask says: in a left-padded row the
/// last padding position is then scored on the row's first real token. `ignore`: only those at positions whose mask
/// is 1.
enum class PadRows { hf, ignore };

/// labels [B, T] shifted left by one, -100 in the last column: what position t is scored on.
inline std::vector<std::int64_t> shifted_targets(const std::vector<std::int64_t>& labels, std::size_t length) {
  std::vector<std::int64_t> targets(labels.size(), kIgnored);
  for (std::size_t i = 0; i + 1 < labels.size(); ++i) {
    if ((i + 1) % length != 0) targets[i] = labels[i + 1];
  }
  return targets;
}

/// −log p(target) = log Σ_v exp(logits_v) − logits_target at each position, 0 where the target is -100.
/// logits [T, V], targets [T] → [T].
template <class S>
std::vector<S> negative_log_likelihood(const std::vector<S>& logits, const std::vector<std::int64_t>& targets) {
  const std::size_t vocab = logits.size() / targets.size();
  std::vector<S> nll(targets.size(), S(0.0));
  for (std::size_t t = 0; t < targets.size(); ++t) {
    if (targets[t] == kIgnored) continue;
    const auto x = row(logits, t, vocab);
    nll[t] = log_sum_exp(x) - x.at(static_cast<std::size_t>(targets[t]));
  }
  return nll;
}

/// Mean of nll over the targets that count; NaN if none does, as in PyTorch.
template <class S>
S mean_loss(const std::vector<S>& nll, const std::vector<std::int64_t>& targets, const std::vector<std::int64_t>& mask,
            PadRows pad_rows) {
  S sum(0.0);
  double count = 0.0;
  for (std::size_t t = 0; t < targets.size(); ++t) {
    if (targets[t] == kIgnored || (pad_rows == PadRows::ignore && mask[t] == 0)) continue;
    sum += nll[t];
    count += 1.0;
  }
  return sum / count;
}

}  // namespace reference

#pragma once
// AdapterSpec: which adapter, as a value. The command line, adapter_config.json and attach() all speak it.

#include <algorithm>    // std::find, std::max
#include <array>        // names
#include <cmath>        // std::isfinite
#include <cstdint>      // sizes
#include <optional>     // alpha follows the rank unless set
#include <string>       // targets
#include <string_view>  // names
#include <vector>       // ranks, targets

#include "perft/core/error.hpp"
#include "perft/ops/low_rank_bank.hpp"

namespace perft::inline PERFT_ABI {

/// The PERFT variants and the LoRA baseline. (Full fine-tuning has no adapter.)
enum class Method { kPerftS, kPerftD, kPerftR, kPerftE, kLora };

/// Whose weights multiply PERFT-R's experts: the adapter router's own (the paper), or the base router's weight of the
/// same rank slot (the authors' released OLMoE code; the adapter router then learns from its auxiliary loss alone).
enum class RouterWeights { kOwn, kAuthorsOlmoe };

inline constexpr std::array<std::string_view, 8> kLoraTargets = {"q_proj", "k_proj",    "v_proj",  "o_proj",
                                                                 "gate",   "gate_proj", "up_proj", "down_proj"};

constexpr std::string_view method_name(Method method) {
  switch (method) {
    case Method::kPerftS:
      return "perft-s";
    case Method::kPerftD:
      return "perft-d";
    case Method::kPerftR:
      return "perft-r";
    case Method::kPerftE:
      return "perft-e";
    case Method::kLora:
      return "lora";
  }
  return "?";
}

struct AdapterSpec {
  Method method = Method::kPerftR;
  DeltaForm delta = DeltaForm::kLora;
  std::int64_t rank = 8;                         // r, of every expert or target
  std::vector<std::vector<std::int64_t>> ranks;  // [layer][expert], instead of `rank` if not empty
  std::optional<double> alpha;                   // 2 · rank, as in every published run, unless set
  std::int64_t experts = 0;                      // M: 1 for S, N (or 0) for E, 0 for lora
  std::int64_t top_k = 0;                        // PERFT-R only
  double dropout = 0;
  RouterWeights router_weights = RouterWeights::kOwn;
  std::vector<std::string> targets;  // lora only

  std::int64_t rank_of(std::int64_t layer, std::int64_t expert) const {
    return ranks.empty() ? rank : ranks.at(static_cast<std::size_t>(layer)).at(static_cast<std::size_t>(expert));
  }

  double effective_alpha() const { return alpha.value_or(2.0 * static_cast<double>(rank)); }

  /// Adapter experts of a block with `base_experts` experts; for lora, how many ranks a layer lists.
  std::int64_t experts_beside(std::int64_t base_experts) const {
    switch (method) {
      case Method::kPerftS:
        return 1;
      case Method::kPerftE:
      case Method::kLora:
        return base_experts;
      case Method::kPerftD:
      case Method::kPerftR:
        return experts;
    }
    return experts;
  }

  /// Numbers that the adapter keeps for backward per token and layer, beside what the base keeps: A x of every slot,
  /// and of PERFT-R's router the probabilities and the choice. `base_top_k`: experts a token goes through in the base.
  std::int64_t kept_per_token(std::int64_t base_top_k) const {
    std::int64_t largest = rank;
    for (const auto& layer : ranks) {
      for (const std::int64_t r : layer) {
        largest = std::max(largest, r);
      }
    }
    std::int64_t slots = 1;
    std::int64_t routing = 0;
    if (method == Method::kPerftD) {
      slots = experts;
    } else if (method == Method::kPerftR) {
      slots = top_k;
      routing = experts + 2 * top_k;
    } else if (method == Method::kPerftE) {
      slots = base_top_k;
    } else if (method == Method::kLora) {
      slots = 0;
      for (const std::string& target : targets) {
        slots += target == "gate_proj" || target == "up_proj" || target == "down_proj" ? base_top_k : 1;
      }
    }
    return slots * largest + routing;
  }

  bool targets_role(std::string_view role) const {
    return std::find(targets.begin(), targets.end(), role) != targets.end();
  }
};

/// Throws ValueError on what no base could make right: rank < 1, top-k > experts, an unknown or no target, …
inline void check_spec(const AdapterSpec& spec) {
  check<ValueError>(spec.rank >= 1 || !spec.ranks.empty(), "adapter: rank ", spec.rank, ", expected at least 1");
  for (const auto& layer : spec.ranks) {
    for (const std::int64_t rank : layer) {
      check<ValueError>(rank >= 1, "adapter: rank ", rank, ", expected at least 1");
    }
  }
  check<ValueError>(spec.dropout >= 0 && spec.dropout < 1, "adapter: dropout ", spec.dropout, ", expected [0, 1)");
  check<ValueError>(spec.alpha || spec.ranks.empty(),
                    "adapter: alpha is not set, expected a number beside a rank per expert");
  check<ValueError>(spec.effective_alpha() > 0 && std::isfinite(spec.effective_alpha()), "adapter: alpha ",
                    spec.effective_alpha(), ", expected a positive number");
  const bool lora = spec.method == Method::kLora;
  if (spec.method == Method::kPerftR || spec.method == Method::kPerftD) {
    check<ValueError>(spec.experts >= 1, "adapter: ", spec.experts, " experts, expected at least 1");
  }
  if (spec.method == Method::kPerftR) {
    check<ValueError>(spec.top_k >= 1 && spec.top_k <= spec.experts, "adapter: top-k ", spec.top_k, " of ",
                      spec.experts, " experts, expected 1 … ", spec.experts);
  }
  check<ValueError>(!lora || !spec.targets.empty(), "adapter: method lora without targets, expected some of ",
                    kLoraTargets);
  check<ValueError>(lora || spec.targets.empty(), "adapter: method ", method_name(spec.method), " with ",
                    spec.targets.size(), " LoRA targets, expected none");
  check<ValueError>(!lora || spec.delta == DeltaForm::kLora, "adapter: method lora has delta form lora only");
  check<ValueError>(spec.router_weights == RouterWeights::kOwn || spec.method == Method::kPerftR,
                    "adapter: router weights authors-olmoe belong to perft-r, not ", method_name(spec.method));
  for (const std::string& target : spec.targets) {
    check<ValueError>(std::find(kLoraTargets.begin(), kLoraTargets.end(), target) != kLoraTargets.end(),
                      "adapter: LoRA target '", target, "', expected one of ", kLoraTargets);
  }
}

}  // namespace perft::inline PERFT_ABI

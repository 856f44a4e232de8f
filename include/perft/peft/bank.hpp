#pragma once
// Making a bank of low-rank experts: names, shapes and initial values.

#include <cmath>    // std::sqrt
#include <cstdint>  // seeds
#include <memory>   // experts
#include <string>   // names

#include "perft/core/rng.hpp"
#include "perft/ops/low_rank_bank.hpp"
#include "perft/peft/adapter_spec.hpp"

namespace perft::inline PERFT_ABI {

namespace detail {

/// The random stream of a tensor: its values depend on (seed, name, index) alone.
inline PhiloxStream tensor_stream(const std::string& name, std::uint64_t seed) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a
  for (const char c : name) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  }
  return PhiloxStream(seed, hash);
}

}  // namespace detail

/// Fills with N(0, std²).
template <class P>
void fill_normal(Parameter<P>& parameter, double std, std::uint64_t seed) {
  PhiloxStream stream = detail::tensor_stream(parameter.name(), seed);
  for (P& value : parameter.mutable_value().mutable_span()) {
    value = static_cast<P>(std * stream.normal());
  }
}

/// Fills with the uniform distribution on (−bound, bound).
template <class P>
void fill_uniform(Parameter<P>& parameter, double bound, std::uint64_t seed) {
  PhiloxStream stream = detail::tensor_stream(parameter.name(), seed);
  for (P& value : parameter.mutable_value().mutable_span()) {
    value = static_cast<P>(bound * (2 * stream.uniform() - 1));
  }
}

/// One expert named `prefix` + "lora_A.weight" / "lora_B.weight" (or w1, w2), trainable, with the published initial
/// values: PERFT A, W1 ~ N(0, 2/r), B, W2 ~ N(0, (1e-6)²); LoRA baselines as PEFT: A kaiming-uniform(√5), B zero.
template <class P>
std::unique_ptr<LowRankExpert<P>> make_low_rank_expert(const std::string& prefix, const AdapterSpec& spec,
                                                       std::int64_t rank, std::int64_t in, std::int64_t out,
                                                       std::uint64_t seed) {
  auto expert = std::make_unique<LowRankExpert<P>>();
  const bool lora = spec.delta == DeltaForm::kLora;
  expert->a.set(prefix + (lora ? "lora_A" : "w1") + ".weight", Tensor<P>::zeros({rank, in}));
  expert->b.set(prefix + (lora ? "lora_B" : "w2") + ".weight", Tensor<P>::zeros({rank, out}));
  expert->b.set_stored_transposed(true);
  expert->a.set_trainable(true);
  expert->b.set_trainable(true);
  if (spec.method == Method::kLora) {
    // kaiming_uniform_(a = √5): bound = √(6 / ((1 + 5) · fan_in))
    fill_uniform(expert->a, 1.0 / std::sqrt(static_cast<double>(in)), seed);
  } else {
    fill_normal(expert->a, std::sqrt(2.0 / static_cast<double>(rank)), seed);
    fill_normal(expert->b, 1e-6, seed);
  }
  return expert;
}

/// Lists a bank's matrices, expert by expert.
template <ComputeType C, class VisitorType>
void visit_bank(LowRankBank<Param<C>>& bank, VisitorType& visitor) {
  for (auto& expert : bank.experts) {
    visitor.parameter(expert->a);
    visitor.parameter(expert->b);
  }
}

}  // namespace perft::inline PERFT_ABI

#pragma once
// Making a bank of low-rank experts: names, shapes and initial values.

#include <cmath>     // std::sqrt
#include <cstdint>   // seeds
#include <memory>    // experts
#include <optional>  // no seed
#include <string>    // names
#include <utility>   // std::move

#include "perft/core/parallel.hpp"
#include "perft/core/rng.hpp"
#include "perft/ops/low_rank_bank.hpp"
#include "perft/peft/adapter_spec.hpp"

namespace perft::inline PERFT_ABI {

namespace detail {

/// The random stream of a tensor, from number 4 · `block`: its values depend on (seed, name, index) alone.
inline PhiloxStream tensor_stream(const std::string& name, std::uint64_t seed, std::uint64_t block = 0) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a
  for (const char c : name) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  }
  return PhiloxStream(seed, hash, block);
}

/// Sets value i to draw(stream) of the stream's number i. A draw takes one number, or two for every two draws: four
/// draws are a block, so every chunk begins one.
template <class P, class Device, class Draw>
void fill_from_stream(Parameter<P, Device>& parameter, std::uint64_t seed, const Draw& draw) {
  Tensor<P> drawn = Tensor<P>::empty(parameter.value().shape());
  P* values = drawn.mutable_data();
  parallel_for(parameter.value().numel(), 1 << 14, [&](std::int64_t begin, std::int64_t end) {
    PhiloxStream stream = tensor_stream(parameter.name(), seed, static_cast<std::uint64_t>(begin / 4));
    for (std::int64_t i = begin; i < end; ++i) {
      values[i] = static_cast<P>(draw(stream));
    }
  });
  parameter.mutable_value() = to_device(std::move(drawn), Device{});
}

}  // namespace detail

/// Fills with N(0, std²).
template <class P, class Device>
void fill_normal(Parameter<P, Device>& parameter, double std, std::uint64_t seed) {
  detail::fill_from_stream(parameter, seed, [std](PhiloxStream& stream) { return std * stream.normal(); });
}

/// Fills with the uniform distribution on (−bound, bound).
template <class P, class Device>
void fill_uniform(Parameter<P, Device>& parameter, double bound, std::uint64_t seed) {
  detail::fill_from_stream(parameter, seed,
                           [bound](PhiloxStream& stream) { return bound * (2 * stream.uniform() - 1); });
}

/// One expert named `prefix` + "lora_A.weight" / "lora_B.weight" (or w1, w2), trainable, with the published initial
/// values (all zeros without a seed, for whoever fills them from a file): PERFT A, W1 ~ N(0, 2/r), B, W2 ~ N(0,
/// (1e-6)²); LoRA baselines as PEFT: A kaiming-uniform(√5), B zero.
template <class P, class Device = Cpu>
std::unique_ptr<LowRankExpert<P, Device>> make_low_rank_expert(const std::string& prefix, const AdapterSpec& spec,
                                                               std::int64_t rank, std::int64_t in, std::int64_t out,
                                                               std::optional<std::uint64_t> seed) {
  auto expert = std::make_unique<LowRankExpert<P, Device>>();
  const bool lora = spec.delta == DeltaForm::kLora;
  expert->a.set(prefix + (lora ? "lora_A" : "w1") + ".weight", to_device(Tensor<P>::zeros({rank, in}), Device{}));
  expert->b.set(prefix + (lora ? "lora_B" : "w2") + ".weight", to_device(Tensor<P>::zeros({rank, out}), Device{}));
  expert->b.set_stored_transposed(true);
  expert->a.set_trainable(true);
  expert->b.set_trainable(true);
  if (!seed) {
    return expert;
  }
  if (spec.method == Method::kLora) {
    // kaiming_uniform_(a = √5): bound = √(6 / ((1 + 5) · fan_in))
    fill_uniform(expert->a, 1.0 / std::sqrt(static_cast<double>(in)), *seed);
  } else {
    fill_normal(expert->a, std::sqrt(2.0 / static_cast<double>(rank)), *seed);
    fill_normal(expert->b, 1e-6, *seed);
  }
  return expert;
}

/// Lists a bank's matrices, expert by expert.
template <ComputeType C, class Device, class VisitorType>
void visit_bank(LowRankBank<Param<C>, Device>& bank, VisitorType& visitor) {
  for (auto& expert : bank.experts) {
    visitor.adapter_parameter(expert->a);
    visitor.adapter_parameter(expert->b);
  }
}

}  // namespace perft::inline PERFT_ABI

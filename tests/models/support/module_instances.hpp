#pragma once
// The modules of a model in one compute type, instantiated by the file that instantiates Engine for it; others that
// need them declare them `extern template`.

#include "models/support/ops_instances.hpp"
#include "perft/models/load_model.hpp"
#include "perft/peft/attach.hpp"

// NOLINTNEXTLINE
#define PERFT_TEST_MODULES(WORD, C)                                                               \
  namespace perft::inline PERFT_ABI {                                                             \
  WORD class Linear<C>;                                                                           \
  WORD class Experts<C>;                                                                          \
  WORD class SparseMoe<C>;                                                                        \
  WORD class PerftBlock<C>;                                                                       \
  WORD class LoraLinear<C>;                                                                       \
  WORD class LoraExperts<C>;                                                                      \
  WORD class CausalLm<C>;                                                                         \
  WORD std::unique_ptr<CausalLm<C>> build_model<C>(const ModelConfig&, const CheckpointTensors&); \
  WORD void attach<C, Cpu, CausalLm<C>>(CausalLm<C>&, const AdapterSpec&, double, std::uint64_t); \
  }

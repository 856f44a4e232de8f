#pragma once
// The differentiable ops of a model, instantiated in one file each: a whole model in one file takes too long to
// compile. A file that includes this and defines nothing only refers to them.

#include "perft/models/causal_lm.hpp"
#include "perft/nn/linear.hpp"
#include "perft/nn/sparse_moe.hpp"
#include "perft/ops/columns.hpp"
#include "perft/ops/low_rank.hpp"

// Explicit instantiation needs a line per function, for a declaration as for a definition: hence macros. `WORD` is
// `extern template` or `template`, C a compute type, P its Param.

// NOLINTBEGIN
#define PERFT_TEST_GEMM(WORD, C)                             \
  namespace perft::inline PERFT_ABI {                        \
  WORD void gemm::run<C>(std::span<const gemm::Problem<C>>); \
  }

#define PERFT_TEST_GEMM_OPS(WORD, C, P)                                                                           \
  namespace perft::inline PERFT_ABI {                                                                             \
  WORD Tensor<P> linear_forward<P, C>(const Tensor<C>&, const Weight<P>&, Precision);                             \
  WORD Variable<P> linear<P, C>(const Variable<C>&, const Weight<P>&, Precision);                                 \
  WORD CrossEntropyOutput<C> cross_entropy_forward<C>(const Tensor<C>&, const Weight<P>&, const ScoredTargets&,   \
                                                      double, bool);                                              \
  WORD Variable<P> cross_entropy<C>(const Variable<C>&, const Weight<P>&, const ScoredTargets&, double, double*); \
  }

#define PERFT_TEST_EXPERT_OPS(WORD, C, P)                                                                            \
  namespace perft::inline PERFT_ABI {                                                                                \
  WORD Variable<P> moe_experts<C>(const Variable<C>&, const Variable<P>&, std::shared_ptr<const RoutingPlan>,        \
                                  const ExpertTable<P>&, std::shared_ptr<const ExpertLora<P>>, HiddenPolicy);        \
  WORD Variable<P> low_rank<C>(const Variable<C>&, const Tensor<std::int32_t>&, const Variable<P>&, LowRankBank<P>&, \
                               const Dropout&);                                                                      \
  }

#define PERFT_TEST_OTHER_OPS(WORD, C, P)                                                                         \
  namespace perft::inline PERFT_ABI {                                                                            \
  WORD Variable<C> attention<C>(const Variable<C>&, const Variable<C>&, const Variable<C>&,                      \
                                std::shared_ptr<const std::vector<Segment>>, const AttentionShape&);             \
  WORD Variable<C> rms_norm<C>(const Variable<C>&, Parameter<P>&, double);                                       \
  WORD Variable<C> rope<C>(const Variable<C>&, const RopeTable<P>&);                                             \
  WORD RopeTable<P> rope_table<P>(std::span<const std::int32_t>, std::int64_t, double);                          \
  WORD Variable<C> clamp<C>(const Variable<C>&, double);                                                         \
  WORD Variable<C> add<C, P>(const Variable<C>&, const Variable<P>&);                                            \
  WORD Routing<P> router_topk<P>(const Variable<P>&, std::int64_t, bool, const Tensor<std::int32_t>&,            \
                                 std::shared_ptr<LoadBalance>, std::shared_ptr<const std::vector<std::uint8_t>>, \
                                 bool);                                                                          \
  }
// NOLINTEND

PERFT_TEST_GEMM(extern template, float)
PERFT_TEST_GEMM(extern template, double)
PERFT_TEST_GEMM(extern template, bf16)
PERFT_TEST_GEMM_OPS(extern template, float, float)
PERFT_TEST_GEMM_OPS(extern template, double, double)
PERFT_TEST_GEMM_OPS(extern template, bf16, float)
PERFT_TEST_EXPERT_OPS(extern template, float, float)
PERFT_TEST_EXPERT_OPS(extern template, double, double)
PERFT_TEST_EXPERT_OPS(extern template, bf16, float)
PERFT_TEST_OTHER_OPS(extern template, float, float)
PERFT_TEST_OTHER_OPS(extern template, double, double)
PERFT_TEST_OTHER_OPS(extern template, bf16, float)

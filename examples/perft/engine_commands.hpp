#pragma once
// The parts of the commands that depend on the compute type: declared here, defined in <command>_impl.hpp, instantiated
// in engine_<type>.cpp.

#include <memory>  // sessions
#include <span>    // rows

#include "finetune_session.hpp"
#include "inspect_router.hpp"
#include "model_files.hpp"
#include "score.hpp"

namespace perft::cli {

/// Fills layers and aux of `load` from the routers of the base model over `rows`, layer by layer. Throws NonFiniteError
/// naming the first layer whose output is not finite.
template <ComputeType C>
void router_load(const ModelFiles& files, std::span<const EncodedRow> rows, RouterLoad& load);

/// Writes the results to options.output and returns the lm loss, nothing without labels. Throws Error.
template <ComputeType C>
std::optional<double> score_with(const ScoreOptions& options, const ScoreInput& input);

/// The model with its adapter, to be trained. Throws ValueError if the base does not allow what the options ask for.
template <ComputeType C>
std::unique_ptr<FinetuneSession> make_session(const ModelFiles& files, const FinetuneOptions& options,
                                              const MicroBatchPlan& plan);

// NOLINTBEGIN
#define PERFT_CLI_ENGINE(WORD, C)                                                                  \
  WORD void router_load<C>(const ModelFiles&, std::span<const EncodedRow>, RouterLoad&);           \
  WORD std::optional<double> score_with<C>(const ScoreOptions&, const ScoreInput&);                \
  WORD std::unique_ptr<FinetuneSession> make_session<C>(const ModelFiles&, const FinetuneOptions&, \
                                                        const MicroBatchPlan&);
// NOLINTEND

PERFT_CLI_ENGINE(extern template, bf16)
PERFT_CLI_ENGINE(extern template, float)
PERFT_CLI_ENGINE(extern template, double)

}  // namespace perft::cli

#pragma once
// `perft score`: see docs/cli.md.

#include "options.hpp"

namespace perft::cli {

/// Logits, losses and, if asked, gradients and AdamW steps of one padded batch, written to `options.output`. Returns
/// the exit code. Throws Error; the caller prints it and exits with 1.
int run_score(const ScoreOptions& options);

}  // namespace perft::cli

#pragma once
// `perft data`: what finetune makes of its rows. See docs/cli.md.

#include "options.hpp"

namespace perft::cli {

/// Prints rows as tokens with their boundaries and mask, or the table that finetune prints before step 1. Returns the
/// exit code. Throws Error; the caller prints it and exits with 1.
int run_data(const DataOptions& options);

}  // namespace perft::cli

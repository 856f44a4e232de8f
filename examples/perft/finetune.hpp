#pragma once
// `perft finetune`: see docs/cli.md.

#include "options.hpp"

namespace perft::cli {

/// Trains an adapter (or the whole model) and leaves the run's folder in `options.out`. Returns the exit code: 0, or
/// 130 / 143 after SIGINT / SIGTERM with the state saved. Throws Error; the caller prints it and exits with 1.
int run_finetune(const FinetuneOptions& options);

}  // namespace perft::cli

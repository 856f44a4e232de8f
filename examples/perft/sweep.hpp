#pragma once
// `perft sweep`: see docs/cli.md.

#include "options.hpp"

namespace perft::cli {

/// Runs the cells of a grid one after another, each as a process of its own, and leaves their folders and tables in
/// `options.out`. Returns the exit code: 0, or 130 / 143 after SIGINT / SIGTERM. Throws Error, also if a cell failed;
/// the caller prints it and exits with 1.
int run_sweep(const SweepOptions& options);

}  // namespace perft::cli

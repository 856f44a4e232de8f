#pragma once
// `perft inspect`: see docs/cli.md.

#include "options.hpp"

namespace perft::cli {

/// Prints what a model or adapter folder holds and, with `--router`, the load of every expert on a text. Returns the
/// exit code. Throws Error; the caller prints it and exits with 1.
int run_inspect(const InspectOptions& options);

}  // namespace perft::cli

// What the commands that run a model share and what does not depend on the compute type.

#include "engine.hpp"

#include <unistd.h>  // isatty

#include <cstdio>  // notes

#include "perft/core/cpu_features.hpp"
#include "perft/core/parallel.hpp"

namespace perft::cli {

Compute resolve_compute(const CommonOptions& options) {
  if (options.dtype) {
    return *options.dtype;
  }
  return active_isa() >= Isa::avx512_bf16 ? Compute::bf16 : Compute::f32;
}

void apply_threads(const CommonOptions& options) {
  if (options.threads) {
    ThreadPool::set_global_threads(*options.threads);
  }
}

void note(const std::string& text) {
  if (isatty(STDERR_FILENO) != 0) {
    std::fprintf(stderr, "perft: note: %s\n", text.c_str());
  }
}

}  // namespace perft::cli

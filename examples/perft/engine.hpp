#pragma once
// What the commands that run a model share. What depends on the compute type is instantiated once per type
// (engine_<type>.cpp) and works on opened files, encoded rows and plain results, so that reading, tokenising and JSON
// are compiled once.

#include <string>  // notes

#include "options.hpp"
#include "perft/core/dtype.hpp"

namespace perft::cli {

/// The compute type of a run: as asked, else bf16 where the machine multiplies it natively, else f32.
Compute resolve_compute(const CommonOptions& options);

/// f.template operator()<C>() for the compute type C of `options`.
template <class F>
auto with_compute_type(const CommonOptions& options, const F& f) {
  switch (resolve_compute(options)) {
    case Compute::bf16:
      return f.template operator()<bf16>();
    case Compute::f32:
      return f.template operator()<float>();
    case Compute::f64:
      break;
  }
  return f.template operator()<double>();
}

/// Applies --threads.
void apply_threads(const CommonOptions& options);

/// A note for a person: stderr, only if it is a terminal.
void note(const std::string& text);

}  // namespace perft::cli

#pragma once
// The learning rate as a function of the step: linear warm-up, then linear decay to 0.

#include <algorithm>  // std::max
#include <cstdint>    // std::int64_t

#include "perft/core/error.hpp"

namespace perft::inline PERFT_ABI {

/// Factor of the base learning rate at optimizer step `step`, counted from 0 (the first step of a run with warm-up has
/// rate 0):
///   step < warmup:  step / max(1, warmup)
///   else:           max(0, (total - step) / max(1, total - warmup))
/// Throws ValueError for negative arguments. Source: transformers, get_linear_schedule_with_warmup.
inline double linear_schedule(std::int64_t step, std::int64_t warmup, std::int64_t total) {
  check<ValueError>(step >= 0 && warmup >= 0 && total >= 0, "linear_schedule: step ", step, ", warm-up ", warmup,
                    " and total ", total, " must not be negative");
  if (step < warmup) {
    return static_cast<double>(step) / static_cast<double>(std::max<std::int64_t>(1, warmup));
  }
  return std::max(0.0,
                  static_cast<double>(total - step) / static_cast<double>(std::max<std::int64_t>(1, total - warmup)));
}

/// Optimizer steps of a run: `epochs` passes over `rows` rows in batches of `batch_size`, the last batch of an epoch
/// perhaps smaller.
inline std::int64_t optimizer_steps(std::int64_t rows, std::int64_t batch_size, std::int64_t epochs) {
  check<ValueError>(rows >= 0 && batch_size >= 1 && epochs >= 0, "optimizer_steps: ", rows, " rows, batches of ",
                    batch_size, ", ", epochs, " epochs, expected none negative and at least one row a batch");
  return (rows + batch_size - 1) / batch_size * epochs;
}

}  // namespace perft::inline PERFT_ABI

#pragma once
// `perft plan`: the memory of a fine-tuning run by part and its speed, from the model's headers.

#include "options.hpp"

namespace perft::cli {

/// Prints the plan and returns the exit code. No weight is read; the speed is that of the machine's own products, timed
/// for a moment. Throws IoError and UnsupportedError as finetune does for the model.
int run_plan(const PlanOptions& options);

}  // namespace perft::cli

#pragma once
// What each command's options are called, mean and accept, and which of them contradict each other.

#include <string>  // names

#include "option_table.hpp"
#include "options.hpp"

namespace perft::cli {

/// Fills `table` with the options of the command that `options` belong to; the table stores into `options`.
void describe(OptionTable& table, FinetuneOptions& options);
void describe(OptionTable& table, PlanOptions& options);
void describe(OptionTable& table, DataOptions& options);
void describe(OptionTable& table, SweepOptions& options);
void describe(OptionTable& table, ScoreOptions& options);
void describe(OptionTable& table, InspectOptions& options);
void describe(OptionTable& table, TokenizeOptions& options);

/// Throws UsageError for options that contradict each other. If `complete` (no config file is still to be read), also
/// for missing ones, and fills defaults that depend on other options.
void settle(OptionTable& table, FinetuneOptions& options, bool complete);
void settle(OptionTable& table, PlanOptions& options, bool complete);
void settle(OptionTable& table, DataOptions& options, bool complete);
void settle(OptionTable& table, SweepOptions& options, bool complete);
void settle(OptionTable& table, ScoreOptions& options, bool complete);
void settle(OptionTable& table, InspectOptions& options, bool complete);
void settle(OptionTable& table, TokenizeOptions& options, bool complete);

}  // namespace perft::cli

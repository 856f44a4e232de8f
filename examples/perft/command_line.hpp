#pragma once
// The command line as one of the option structs.

#include <string>   // help text
#include <variant>  // the commands

#include "options.hpp"

namespace perft::cli {

/// A text to print (help, version) or the command to run with its options checked and defaults filled in.
using Request = std::variant<std::string, FinetuneOptions, SweepOptions, PlanOptions, DataOptions, ScoreOptions,
                             InspectOptions, TokenizeOptions>;

/// Throws UsageError for everything that is wrong with the command line alone, before any file is touched, then Error
/// for what a `--config` file adds.
Request parse_command_line(int argc, const char* const* argv);

}  // namespace perft::cli

#pragma once

// SIGINT and SIGTERM: what has no state to save ends at once with exit code 130 or 143 and leaves no temporary file;
// training finishes its step first.

namespace perft::cli {

/// Handles both signals from now on, and ignores SIGPIPE and SIGXFSZ: a reader that goes away and a file that may
/// not grow are errors to report, not deaths.
/// Call it first, on the main thread.
void install_signal_handlers();

/// From now on a signal only sets `interrupted`.
void defer_signals();

/// The number of a deferred signal, or 0.
int interrupted();

}  // namespace perft::cli

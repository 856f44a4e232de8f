#pragma once
// perft tokenize: JSON strings to id arrays, or back, line by line.

#include <iosfwd>  // streams

#include "options.hpp"

namespace perft::cli {

/// Reads one JSON string a line from `in` and writes one JSON array of ids a line to `out`; with options.decode the
/// reverse, written in ASCII. Reads `options.model`/tokenizer.json. Returns 0. Throws Error naming stdin:<line> for a
/// bad line; the results of the lines before it have been written and flushed.
int run_tokenize(const TokenizeOptions& options, std::istream& in, std::ostream& out);

}  // namespace perft::cli

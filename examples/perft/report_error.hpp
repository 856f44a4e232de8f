#pragma once
// How every failure of the program looks: one line on stderr, and the exit code.

#include <cstdio>       // stderr
#include <string>       // the line
#include <string_view>  // the message

#include "perft/core/error.hpp"

namespace perft::cli {

/// The command line alone is wrong: exit code 2. Every other Error is exit code 1.
class UsageError : public Error {
 public:
  using Error::Error;
};

/// `message` as one line: line breaks and other control characters (file names and library texts may hold any) become
/// spaces.
inline std::string one_line(std::string_view message) {
  std::string line(message);
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      c = ' ';
    }
  }
  return line;
}

/// Prints `perft: error: <message>` and returns `exit_code`.
inline int report_error(std::string_view message, int exit_code) {
  const std::string line = "perft: error: " + one_line(message) + "\n";
  std::fwrite(line.data(), 1, line.size(), stderr);
  std::fflush(stderr);
  return exit_code;
}

}  // namespace perft::cli

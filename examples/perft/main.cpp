// The program `perft`: reads the command line, runs one command, and turns every failure into one line and an exit
// code.

#include <exception>  // everything thrown
#include <iostream>   // results
#include <new>        // std::bad_alloc
#include <sstream>    // results held back until success
#include <string>     // texts
#include <variant>    // the commands

#include "command_line.hpp"
#include "data_show.hpp"
#include "finetune.hpp"
#include "inspect.hpp"
#include "plan.hpp"
#include "report_error.hpp"
#include "score.hpp"
#include "signals.hpp"
#include "sweep.hpp"
#include "tokenize.hpp"

namespace perft::cli {

namespace {

int run(const std::string& text) {
  std::cout << text;
  return 0;
}

int run(const FinetuneOptions& options) {
  return run_finetune(options);
}

int run(const PlanOptions& options) {
  return run_plan(options);
}

int run(const SweepOptions& options) {
  return run_sweep(options);
}

int run(const DataOptions& options) {
  return run_data(options);
}

int run(const ScoreOptions& options) {
  return run_score(options);
}

int run(const InspectOptions& options) {
  return run_inspect(options);
}

int run(const TokenizeOptions& options) {
  return run_tokenize(options, std::cin, std::cout);
}

bool wants_json(const Request& request) {
  return std::visit(
      [](const auto& options) {
        if constexpr (requires { options.json; }) {
          return options.json;
        } else {
          return false;
        }
      },
      request);
}

/// Holds back what is written to std::cout until `release`: with --json, stdout stays empty unless the command ends
/// well.
class HeldOutput {
 public:
  explicit HeldOutput(bool hold) : stdout_(std::cout.rdbuf()) {
    if (hold) {
      std::cout.rdbuf(held_.rdbuf());
    }
  }

  ~HeldOutput() { std::cout.rdbuf(stdout_); }

  HeldOutput(const HeldOutput&) = delete;
  HeldOutput& operator=(const HeldOutput&) = delete;

  void release() {
    std::cout.rdbuf(stdout_);
    std::cout << held_.str();
  }

 private:
  std::streambuf* stdout_;
  std::ostringstream held_;
};

int run_program(int argc, const char* const* argv) {
  const Request request = parse_command_line(argc, argv);
  HeldOutput output(wants_json(request));
  const int exit_code = std::visit([](const auto& options) { return run(options); }, request);
  if (exit_code == 0) {
    output.release();
  }
  std::cout.flush();
  check<IoError>(std::cout.good(), "stdout: cannot write all results; check the disk or the reading program");
  return exit_code;
}

}  // namespace

}  // namespace perft::cli

int main(int argc, char** argv) {
  std::ios::sync_with_stdio(false);
  perft::cli::install_signal_handlers();
  try {
    return perft::cli::run_program(argc, argv);
  } catch (const perft::cli::UsageError& error) {
    return perft::cli::report_error(error.what(), 2);
  } catch (const std::bad_alloc&) {
    return perft::cli::report_error("out of memory; use a smaller batch, a shorter cutoff or --dtype bf16", 1);
  } catch (const std::exception& error) {
    return perft::cli::report_error(error.what(), 1);
  }
}

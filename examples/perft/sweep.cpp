// `perft sweep`: the cells of a grid as runs of `perft finetune`, resumable, and the tables of what they found.

#include "sweep.hpp"

#include <fcntl.h>       // the folder's lock
#include <fmt/format.h>  // lines
#include <poll.h>        // output of a run
#include <sys/file.h>    // flock
#include <sys/prctl.h>   // a run ends with its sweep
#include <sys/wait.h>    // exit codes
#include <unistd.h>      // fork, exec

#include <cerrno>        // EINTR
#include <chrono>        // wall time
#include <csignal>       // SIGTERM
#include <filesystem>    // folders
#include <fstream>       // metrics as they grow
#include <iostream>      // results
#include <map>           // states
#include <string>        // texts
#include <system_error>  // reasons
#include <vector>        // cells

#include "engine.hpp"
#include "perft/io/atomic_file.hpp"
#include "perft/io/json.hpp"
#include "perft/io/mapped_file.hpp"
#include "report_error.hpp"
#include "run_folder.hpp"
#include "signals.hpp"
#include "sweep_grid.hpp"
#include "sweep_table.hpp"

namespace perft::cli {

namespace {

namespace fs = std::filesystem;

/// What is known of every cell, kept between processes.
constexpr const char* kStateFile = "sweep.json";

/// One process's hold on a sweep's folder, given back with the process whatever ends it.
class FolderLock {
 public:
  explicit FolderLock(const std::string& folder) : fd_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    check<IoError>(fd_ >= 0, folder, ": cannot open the folder: ", errno_text(errno), "; check --out");
    if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
      const int code = errno;
      ::close(fd_);
      // A file system without locks is no reason not to run.
      check<IoError>(code != EWOULDBLOCK, folder, ": another perft sweep is at work here; wait for it or stop it");
      fd_ = -1;
    }
  }

  ~FolderLock() {
    if (fd_ >= 0) {
      ::close(fd_);
    }
  }

  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int fd_;
};

/// How a run ended and what it printed.
struct RunEnd {
  int status = 0;  // as waitpid gives it
  std::string out;
  std::string err;
};

/// Runs this program again with `arguments`, both its outputs read; a signal to this process goes on to it.
/// `while_waiting` is called about twice a second. It gets SIGTERM, and saves, should this process be killed.
template <class F>
RunEnd run_program_again(const std::vector<std::string>& arguments, const F& while_waiting) {
  int out[2];
  int err[2];
  check<IoError>(::pipe2(out, O_CLOEXEC) == 0 && ::pipe2(err, O_CLOEXEC) == 0,
                 "sweep: cannot make a pipe: ", errno_text(errno));
  std::vector<char*> argv;
  for (const std::string& argument : arguments) {
    argv.push_back(const_cast<char*>(argument.c_str()));
  }
  argv.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  check<IoError>(child >= 0, "sweep: cannot start a process: ", errno_text(errno));
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent || ::dup2(out[1], STDOUT_FILENO) < 0 || ::dup2(err[1], STDERR_FILENO) < 0) {
      ::_exit(1);
    }
    ::execv("/proc/self/exe", argv.data());
    ::_exit(127);
  }
  ::close(out[1]);
  ::close(err[1]);
  RunEnd end;
  pollfd waiting[2] = {{out[0], POLLIN, 0}, {err[0], POLLIN, 0}};
  bool told = false;
  while (waiting[0].fd >= 0 || waiting[1].fd >= 0) {
    if (interrupted() != 0 && !told) {
      ::kill(child, interrupted());
      told = true;
    }
    ::poll(waiting, 2, 500);
    for (int i = 0; i < 2; ++i) {
      if (waiting[i].fd >= 0 && waiting[i].revents != 0) {
        char buffer[4096];
        const ssize_t count = ::read(waiting[i].fd, buffer, sizeof buffer);
        if (count > 0) {
          (i == 0 ? end.out : end.err).append(buffer, static_cast<std::size_t>(count));
        } else if (count == 0 || errno != EINTR) {
          ::close(waiting[i].fd);
          waiting[i].fd = -1;
        }
      }
    }
    while_waiting();
  }
  while (::waitpid(child, &end.status, 0) < 0 && errno == EINTR) {
  }
  return end;
}

std::string last_line(std::string text) {
  while (text.ends_with('\n')) {
    text.pop_back();
  }
  return text.substr(text.rfind('\n') + 1);
}

class Sweep {
 public:
  using Clock = std::chrono::steady_clock;

  explicit Sweep(const SweepOptions& options) : options_(options), grid_(read_grid(options)) {
    for (const SweepCell& cell : grid_.cells) {
      results_.push_back({cell.name, cell.varied, CellState::waiting, {}, 0, 0, 0, {}, 0, 0, 0, 0, 0});
    }
  }

  int run() {
    if (options_.list) {
      return list();
    }
    std::error_code error;
    fs::create_directories(options_.out, error);
    check<IoError>(!error, options_.out, ": cannot make the folder: ", error.message(),
                   "; check --out and its permissions");
    check<IoError>(!RunFolder(options_.out).holds_run(), options_.out,
                   ": holds a run of finetune, expected a sweep's folder or a new name; give another --out");
    const FolderLock lock(options_.out);
    read_state();
    defer_signals();
    std::size_t failed = 0;
    for (std::size_t i = 0; i < results_.size() && interrupted() == 0; ++i) {
      run_cell(i);
      failed += results_[i].state == CellState::failed ? 1 : 0;
      save();
      say(i);
    }
    if (interrupted() != 0) {
      note(options_.out + ": stopped by a signal; the same command goes on");
      return 128 + interrupted();
    }
    save();
    const std::vector<CellResult> table = ranked(results_);
    if (options_.json) {
      std::cout << sweep_json(table, grid_).dump() << "\n";
    } else {
      std::cout << "\n" << sweep_text(table);
      for (const std::string& line : left_out_lines(grid_)) {
        std::cout << line << "\n";
      }
      std::cout << "tables: " << options_.out << "/sweep.csv, sweep.md, sweep.html\n";
    }
    std::cout.flush();
    for (const CellResult& result : results_) {
      check<IoError>(result.state != CellState::failed, options_.out, ": ", failed, " of ", results_.size(),
                     " cells failed, first ", result.name, ": ", result.error,
                     "; mend that and give the same command again");
    }
    return 0;
  }

 private:
  int list() {
    if (options_.json) {
      std::cout << sweep_json(results_, grid_).dump() << "\n";
      return 0;
    }
    for (const CellResult& result : results_) {
      std::cout << result.name << "\n";
    }
    std::cout << results_.size() << " cells\n";
    for (const std::string& line : left_out_lines(grid_)) {
      std::cout << line << "\n";
    }
    return 0;
  }

  std::string file(const std::string& name) const { return options_.out + "/" + name; }

  void run_cell(std::size_t i) {
    CellResult& result = results_[i];
    const std::string config = file(result.name + ".toml");
    const std::string wanted = grid_.cells[i].options.to_toml();
    if (result.state == CellState::finished && fs::exists(config) && read_text_file(config) == wanted) {
      return;
    }
    const auto begin = Clock::now();
    write_text_atomically(config, wanted);
    ProgressLine progress(fmt::format("[{}/{}] {}", i + 1, results_.size(), result.name), file(result.name));
    const RunEnd end = run_program_again({"perft", "finetune", "--config", config, "--resume", "--json"},
                                         [&progress] { progress.draw(); });
    progress.clear();
    result.wall_seconds += std::chrono::duration<double>(Clock::now() - begin).count();
    result.error.clear();
    const int code = WIFEXITED(end.status) ? WEXITSTATUS(end.status) : -1;
    if (code == 0) {
      take_result(last_line(end.out), result);
      return;
    }
    if (interrupted() != 0 && (code == 128 + SIGINT || code == 128 + SIGTERM)) {
      result.state = CellState::stopped;
      return;
    }
    result.state = CellState::failed;
    const std::string line = last_line(end.err);
    const std::string prefix = "perft: error: ";
    result.error = line.starts_with(prefix)  ? line.substr(prefix.size())
                   : WIFSIGNALED(end.status) ? fmt::format("ended by signal {}", WTERMSIG(end.status))
                                             : fmt::format("exit code {}", code);
  }

  /// What a run that is finished says of itself, and what its metrics.jsonl holds.
  void take_result(const std::string& json, CellResult& result) const {
    const Json said = parse_json(json, result.name + ": the last line of perft finetune --json");
    result.trainable_parameters = said.at("trainable_parameters").get<std::int64_t>();
    result.peak_anonymous_bytes = said.at("peak_anonymous_bytes").get<std::int64_t>();
    result.best_val_loss.reset();
    read_metrics(read_text_file(file(result.name) + "/" + kMetricsFile), result);
    result.state = CellState::finished;
  }

  /// A line on the terminal that tells how far a run is.
  class ProgressLine {
   public:
    ProgressLine(std::string name, const std::string& folder)
        : name_(std::move(name)), metrics_(folder + "/" + kMetricsFile), terminal_(::isatty(STDERR_FILENO) == 1) {}

    void draw() {
      if (!terminal_) {
        return;
      }
      std::ifstream in(metrics_, std::ios::binary | std::ios::ate);
      std::string tail;
      if (in) {
        constexpr std::streamoff kTail = 2048;  // a few lines
        const std::streamoff size = in.tellg();
        in.seekg(std::max<std::streamoff>(0, size - kTail));
        tail.assign(std::istreambuf_iterator<char>(in), {});
      }
      CellResult now;
      read_metrics(tail, now);
      std::cerr << "\r" << name_
                << (now.steps > 0 ? fmt::format(": step {}, train loss {:.4f}", now.steps, now.train_loss) : "")
                << "\x1b[K" << std::flush;
    }

    void clear() const {
      if (terminal_) {
        std::cerr << "\r\x1b[K" << std::flush;
      }
    }

   private:
    std::string name_;
    std::string metrics_;
    bool terminal_;
  };

  /// One line on a cell that has ended.
  void say(std::size_t i) const {
    const CellResult& r = results_[i];
    if (options_.json) {
      return;
    }
    std::string text = state_name(r.state) + (r.error.empty() ? "" : ": " + one_line(r.error));
    if (r.state == CellState::finished) {
      text = r.best_val_loss ? fmt::format("best validation loss {:.5f} ± {:.5f} at step {}", *r.best_val_loss,
                                           r.val_standard_error, r.best_step)
                             : fmt::format("train loss {:.5f}", r.train_loss);
      text += fmt::format(", {:.1f} s", r.wall_seconds);
    }
    std::cout << fmt::format("[{}/{}] {}: {}", i + 1, results_.size(), r.name, text) << std::endl;
  }

  void read_state() {
    const std::string path = file(kStateFile);
    if (!fs::exists(path)) {
      return;
    }
    const Json saved = parse_json_strict(read_text_file(path), path);
    check<IoError>(saved.is_object(), path, ": is ", saved.type_name(), ", expected an object; remove the file");
    others_ = saved;
    for (CellResult& result : results_) {
      if (!saved.contains(result.name)) {
        continue;
      }
      const Json& cell = saved[result.name];
      try {
        result.wall_seconds = cell.at("wall_seconds").get<double>();
        const std::string metrics = file(result.name) + "/" + kMetricsFile;
        if (cell.at("state") == state_name(CellState::finished) && fs::exists(metrics)) {
          result.trainable_parameters = cell.at("trainable_parameters").get<std::int64_t>();
          result.peak_anonymous_bytes = cell.at("peak_anonymous_bytes").get<std::int64_t>();
          read_metrics(read_text_file(metrics), result);
          result.state = CellState::finished;
        }
      } catch (const Json::exception&) {
        fail<IoError>(path, ": ", in_quotes(result.name),
                      " is not as perft sweep writes it; remove the file to run or "
                      "read all cells again");
      }
    }
  }

  void save() const {
    OrderedJson state = others_;
    for (const CellResult& result : results_) {
      state[result.name] = {{"state", state_name(result.state)},
                            {"wall_seconds", result.wall_seconds},
                            {"trainable_parameters", result.trainable_parameters},
                            {"peak_anonymous_bytes", result.peak_anonymous_bytes}};
    }
    write_text_atomically(file(kStateFile), state.dump(1) + "\n");
    const std::vector<CellResult> table = ranked(results_);
    write_text_atomically(file("sweep.csv"), sweep_csv(table, grid_));
    write_text_atomically(file("sweep.md"), sweep_markdown(table, grid_));
    write_text_atomically(file("sweep.html"), sweep_html(options_.out, table, grid_));
  }

  SweepOptions options_;
  SweepGrid grid_;
  std::vector<CellResult> results_;             // as grid_.cells
  OrderedJson others_ = OrderedJson::object();  // of sweep.json: cells that this grid does not have
};

}  // namespace

int run_sweep(const SweepOptions& options) {
  return Sweep(options).run();
}

}  // namespace perft::cli

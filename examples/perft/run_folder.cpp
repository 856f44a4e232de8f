// The folder of a fine-tuning run.

#include "run_folder.hpp"

#include <algorithm>     // std::sort
#include <charconv>      // step numbers
#include <filesystem>    // folders
#include <optional>      // names that are no checkpoint
#include <sstream>       // metrics lines
#include <system_error>  // reasons

#include "copy_file.hpp"
#include "perft/io/atomic_file.hpp"
#include "perft/io/json.hpp"
#include "perft/io/mapped_file.hpp"
#include "perft/io/sync.hpp"

namespace perft::cli {

namespace fs = std::filesystem;

namespace {

constexpr const char* kCheckpointPrefix = "checkpoint-";
constexpr const char* kTemporaryPrefix = ".checkpoint-";

/// What publishing a result may write, weights before the configuration that belongs to them.
std::vector<std::string> result_files() {
  std::vector<std::string> names = {"model.safetensors"};
  names.insert(names.end(), std::begin(kFilesBesideWeights), std::end(kFilesBesideWeights));
  names.insert(names.end(), {"adapter_model.safetensors", "adapter_config.json"});
  return names;
}

std::optional<std::int64_t> step_of(const std::string& name) {
  const std::string prefix = kCheckpointPrefix;
  if (name.rfind(prefix, 0) != 0) {
    return std::nullopt;
  }
  std::int64_t step = 0;
  const char* end = name.data() + name.size();
  const auto parsed = std::from_chars(name.data() + prefix.size(), end, step);
  return parsed.ec == std::errc() && parsed.ptr == end ? std::optional(step) : std::nullopt;
}

}  // namespace

void RunFolder::create(const std::string& model) {
  check_free(model);
  std::error_code error;
  fs::path folder;
  for (const fs::path& part : fs::path(path_)) {
    folder /= part;
    if (part.empty() || fs::exists(folder, error)) {
      continue;
    }
    if (fs::create_directory(folder, error)) {
      made_.push_back(folder.string());
      sync_folder(detail::folder_of(folder.string()));
    }
    if (error) {
      break;
    }
  }
  check<IoError>(!error, path_, ": cannot make the folder: ", error.message(),
                 "; check --out, its permissions and free space");
  lock_ = std::make_unique<RunLock>(path_);
  check_run_free(model);  // as it is now that nobody else writes
  begun_ = true;
  remove_leftovers();
}

void RunFolder::open() {
  lock_ = std::make_unique<RunLock>(path_);
  remove_leftovers();
}

void RunFolder::discard_unless_saved() {
  std::error_code ignored;
  if (begun_ && checkpoints().empty()) {
    // What makes a run of the folder goes last: killed in between, it can still be resumed.
    for (const char* name : {kReportFile, kEventFile, kMetricsFile, kOptionsFile}) {
      fs::remove(file(name), ignored);
    }
    remove_leftovers();
  }
  lock_.reset();
  for (auto folder = made_.rbegin(); folder != made_.rend(); ++folder) {
    fs::remove(*folder, ignored);  // refuses a folder that is not empty
  }
}

void RunFolder::remove_leftovers() const {
  std::vector<std::string> written = result_files();
  written.insert(written.end(), {kOptionsFile, kMetricsFile, kReportFile});
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(path_, ignored)) {
    const std::string name = entry.path().filename().string();
    const bool ours = std::any_of(written.begin(), written.end(),
                                  [&](const std::string& file) { return name.starts_with(file + ".tmp-"); });
    if (ours || name.starts_with(kTemporaryPrefix)) {
      fs::remove_all(entry.path(), ignored);
    }
  }
}

void RunFolder::check_free(const std::string& model) const {
  RunLock::check_free(path_);
  check_run_free(model);
}

void RunFolder::check_run_free(const std::string& model) const {
  std::error_code ignored;
  check<IoError>(!fs::exists(path_, ignored) || fs::is_directory(path_, ignored), path_,
                 ": is not a folder, expected one or a new name; give another --out");
  check<IoError>(!fs::equivalent(path_, model, ignored), path_,
                 ": is the folder of --model, expected one of its own; give another --out");
  check<IoError>(!holds_run(), path_, ": holds a run already; use --resume to continue it, or another --out");
  for (const auto& entry : fs::directory_iterator(path_, ignored)) {
    const std::string name = entry.path().filename().string();
    check<IoError>(!step_of(name), path_, ": holds ", name, ", which the run would replace; give another --out");
  }
  std::vector<std::string> written = result_files();
  written.insert(written.end(), {kReportFile, kEventFile});
  for (const std::string& name : written) {
    check<IoError>(!fs::exists(file(name), ignored), path_, ": holds ", name,
                   ", which the run would replace; give another --out");
  }
}

bool RunFolder::holds_run() const {
  std::error_code ignored;  // a path below a file does not exist either
  return fs::exists(file(kOptionsFile), ignored) || fs::exists(file(kMetricsFile), ignored) || !checkpoints().empty();
}

std::vector<std::int64_t> RunFolder::checkpoints() const {
  std::vector<std::int64_t> steps;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(path_, error)) {
    const auto holds = [&](const char* name) {
      std::error_code missing;
      return fs::is_regular_file(entry.path() / name, missing);
    };
    const auto step = step_of(entry.path().filename().string());
    if (step && holds("training_state.safetensors") &&
        ((holds("adapter_model.safetensors") && holds("adapter_config.json")) ||
         (holds("model.safetensors") && holds("config.json")))) {
      steps.push_back(*step);
    }
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

void RunFolder::save_checkpoint(std::int64_t step, const std::function<void(const std::string&)>& write) const {
  const std::string temporary = path_ + "/" + kTemporaryPrefix + std::to_string(step) + ".tmp";
  const std::string target = checkpoint(step);
  std::string aside;
  std::error_code error;
  fs::remove_all(temporary, error);
  const bool made = !error && fs::create_directory(temporary, error);
  check<IoError>(made, temporary, ": cannot make the folder: ", error.message(), "; make room for it and resume");
  try {
    write(temporary);
    sync_folder(temporary);
    if (fs::exists(fs::symlink_status(target, error))) {
      aside = set_aside(target, error);  // no whole checkpoint: a run goes on from the newest of those
    }
    fs::rename(temporary, target, error);
    check<IoError>(!error, target, ": cannot be put in place: ", error.message(), "; make room for it and resume");
  } catch (...) {
    fs::remove_all(temporary, error);
    throw;
  }
  sync_folder(path_);
  if (!aside.empty()) {
    fs::remove_all(aside, error);
  }
}

std::string RunFolder::set_aside(const std::string& folder, std::error_code& error) const {
  const std::string name = fs::path(folder).filename().string();
  std::string aside = path_ + "/." + name + ".old";
  fs::remove_all(aside, error);
  fs::rename(folder, aside, error);
  return aside;
}

void RunFolder::prune(std::int64_t keep, std::int64_t best) const {
  std::error_code error;
  std::vector<std::string> aside;
  const std::vector<std::int64_t> steps = checkpoints();
  const auto count = static_cast<std::int64_t>(steps.size());
  for (std::int64_t i = 0; i < count - keep; ++i) {
    if (const std::int64_t step = steps[static_cast<std::size_t>(i)]; step != best) {
      aside.push_back(set_aside(checkpoint(step), error));
      check<IoError>(!error, checkpoint(step), ": cannot be removed: ", error.message(), "; check the disk and resume");
    }
  }
  if (!aside.empty()) {
    sync_folder(path_);  // or a power failure could undo the rename and not what is removed now
  }
  for (const std::string& folder : aside) {
    fs::remove_all(folder, error);  // what stays goes when the run is resumed
  }
}

void RunFolder::publish(std::int64_t step, bool whole_model) const {
  const std::string from = checkpoint(step);
  for (const std::string& name : result_files()) {
    copy_if_there(from, path_, name);
    const bool needed =
        whole_model ? name == "model.safetensors" || name == "config.json" : name.starts_with("adapter_");
    check<IoError>(!needed || fs::exists(file(name)), from, ": holds no ", name,
                   ", the best state's; put the folder back, or train again with another --out");
  }
}

void RunFolder::truncate_metrics(std::int64_t step) const {
  const std::string path = file(kMetricsFile);
  if (!fs::exists(path)) {
    return;
  }
  std::istringstream lines(read_text_file(path));
  std::string kept;
  for (std::string line; step > 0 && std::getline(lines, line);) {  // step 0 is validated anew
    const Json json = Json::parse(line, nullptr, false);            // the last line of a killed run may be cut
    if (json.is_object() && json.contains("step") && json["step"].is_number_integer() &&
        json["step"].get<std::int64_t>() <= step) {
      kept += line + "\n";
    }
  }
  write_text_atomically(path, kept);
}

RunFolder::Totals RunFolder::metric_totals() const {
  Totals totals;
  if (!fs::exists(file(kMetricsFile))) {
    return totals;
  }
  std::istringstream lines(read_text_file(file(kMetricsFile)));
  for (std::string line; std::getline(lines, line);) {
    const Json json = Json::parse(line, nullptr, false);
    const auto number = [&](const char* key) {
      return json.is_object() && json.contains(key) && json[key].is_number() ? json[key].get<double>() : 0.0;
    };
    if (number("step") > 1 && number("seconds") > 0) {
      totals.seconds += number("seconds");
      totals.tokens += static_cast<std::int64_t>(number("tokens"));
    }
    totals.most_anonymous_bytes =
        std::max(totals.most_anonymous_bytes, static_cast<std::int64_t>(number("anonymous_bytes")));
  }
  return totals;
}

bool RunFolder::report_is_old(std::int64_t step) const {
  std::error_code missing;
  const auto report = fs::last_write_time(file(kReportFile), missing);
  return missing || report < fs::last_write_time(checkpoint(step) + "/training_state.safetensors", missing);
}

}  // namespace perft::cli

// The folder of a fine-tuning run.

#include "run_folder.hpp"

#include <algorithm>     // std::sort
#include <charconv>      // step numbers
#include <filesystem>    // folders
#include <sstream>       // metrics lines
#include <system_error>  // reasons

#include "copy_file.hpp"
#include "perft/io/atomic_file.hpp"
#include "perft/io/json.hpp"
#include "perft/io/mapped_file.hpp"

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
    }
    if (error) {
      break;
    }
  }
  check<IoError>(!error, path_, ": cannot make the folder: ", error.message(), "; check --out and its permissions");
}

void RunFolder::discard_unless_saved() const {
  if (checkpoints().empty()) {
    std::error_code ignored;
    for (const char* name : {kOptionsFile, kMetricsFile, kReportFile, kEventFile}) {
      fs::remove(file(name), ignored);
    }
    for (auto folder = made_.rbegin(); folder != made_.rend(); ++folder) {
      fs::remove(*folder, ignored);  // refuses a folder that is not empty
    }
  }
}

void RunFolder::check_free(const std::string& model) const {
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
  std::error_code error;
  fs::remove_all(temporary, error);
  fs::create_directory(temporary, error);
  check<IoError>(!error, temporary, ": cannot make the folder: ", error.message());
  try {
    write(temporary);
  } catch (...) {
    fs::remove_all(temporary, error);
    throw;
  }
  sync_folder(temporary);
  fs::remove_all(checkpoint(step), error);
  fs::rename(temporary, checkpoint(step), error);
  if (error) {
    const std::string reason = error.message();
    fs::remove_all(temporary, error);
    fail<IoError>(checkpoint(step), ": cannot be put in place: ", reason, "; make room for it and resume");
  }
  sync_folder(path_);
}

void RunFolder::prune(std::int64_t keep, std::int64_t best) const {
  std::error_code error;
  const std::vector<std::int64_t> steps = checkpoints();
  const auto count = static_cast<std::int64_t>(steps.size());
  for (std::int64_t i = 0; i < count - keep; ++i) {
    if (steps[static_cast<std::size_t>(i)] != best) {
      fs::remove_all(checkpoint(steps[static_cast<std::size_t>(i)]), error);
    }
  }
  for (const auto& entry : fs::directory_iterator(path_, error)) {
    if (entry.path().filename().string().rfind(kTemporaryPrefix, 0) == 0) {
      fs::remove_all(entry.path(), error);
    }
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

}  // namespace perft::cli

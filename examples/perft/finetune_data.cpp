// What fine-tuning needs before a model is loaded.

#include "finetune_data.hpp"

#include <csignal>    // SIGINT, SIGTERM
#include <fstream>    // /proc
#include <map>        // roles
#include <set>        // layers of a role
#include <sstream>    // /proc
#include <stdexcept>  // out of range

#include <fmt/format.h>

#include "perft/data/order.hpp"
#include "perft/models/config.hpp"
#include "perft/text/tokenizer.hpp"

namespace perft::cli {

namespace {

volatile std::sig_atomic_t g_signal = 0;

void on_signal(int number) {
  g_signal = number;
}

/// "model.layers.3.mlp.perft.experts.2.lora_A.weight" -> {"mlp.perft.experts.*.lora_A", 3}; −1 outside a layer.
std::pair<std::string, std::int64_t> role_of(const std::string& name) {
  std::istringstream parts(name);
  std::string role;
  std::int64_t layer = -1;
  std::string previous;
  for (std::string part; std::getline(parts, part, '.'); previous = part) {
    const bool number = !part.empty() && part.find_first_not_of("0123456789") == std::string::npos;
    if (part == "model" || part == "layers" || part == "weight") {
      continue;
    }
    if (number && previous == "layers") {
      layer = std::stoll(part);
      continue;
    }
    role += (role.empty() ? "" : ".") + (number ? std::string("*") : part);
  }
  return {role, layer};
}

std::string with_commas(std::int64_t value) {
  std::string digits = std::to_string(value);
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > 0; at -= 3) {
    digits.insert(static_cast<std::size_t>(at), ",");
  }
  return digits;
}

std::int64_t proc_value(const char* file, const std::string& key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (line.rfind(key, 0) == 0) {
      std::istringstream rest(line.substr(key.size()));
      std::int64_t kib = 0;
      rest >> kib;
      return kib * 1024;
    }
  }
  return 0;
}

}  // namespace

FinetuneData load_data(const FinetuneOptions& options) {
  const PromptTemplate prompt = load_prompt_template(options.prompt);
  const std::vector<Row> rows = read_rows(options.data);
  const Tokenizer tokenizer = Tokenizer::load(options.model + "/tokenizer.json");
  const std::vector<std::int64_t> eos = read_eos_ids(options.model);
  check<IoError>(!eos.empty(), options.model, ": no eos_token_id in generation_config.json or config.json; add one");
  EncodeOptions encode;
  encode.cutoff = options.cutoff;
  encode.train_on_inputs = options.train_on_inputs;
  encode.eos_id = static_cast<std::int32_t>(eos.front());
  FinetuneData data;
  std::vector<EncodedRow> encoded;
  try {
    encoded = encode_rows(tokenizer, prompt, rows, encode, data.stats);
  } catch (const ValueError& error) {
    fail<IoError>(options.data.front(), ": ", error.what());
  }
  RowSplit split;
  try {
    split = split_rows(static_cast<std::int64_t>(encoded.size()), options.val_size,
                       static_cast<std::uint64_t>(options.seed));
  } catch (const ValueError& error) {
    fail<IoError>(options.data.front(), ": ", error.what());
  }
  for (const std::int64_t i : split.train) {
    data.train.push_back(std::move(encoded[static_cast<std::size_t>(i)]));
  }
  for (const std::int64_t i : split.validation) {
    data.validation.push_back(std::move(encoded[static_cast<std::size_t>(i)]));
  }
  return data;
}

std::string data_table(const FinetuneData& data, const FinetuneOptions& options) {
  const EncodeStats& s = data.stats;
  std::string out;
  out += fmt::format("rows               {:>14}   ({} to train, {} held back)\n", with_commas(s.rows),
                     with_commas(static_cast<std::int64_t>(data.train.size())),
                     with_commas(static_cast<std::int64_t>(data.validation.size())));
  out += fmt::format("tokens             {:>14}   (longest row {})\n", with_commas(s.tokens), s.longest);
  out +=
      fmt::format("trained tokens     {:>14}   ({:.1f} %)\n", with_commas(s.trained_tokens), 100 * s.trained_share());
  out += fmt::format("truncated rows     {:>14}   (cutoff {} tokens)\n", with_commas(s.truncated), options.cutoff);
  out += fmt::format("rows without EOS   {:>14}\n", with_commas(s.without_eos));
  if (s.without_label > 0) {
    out += fmt::format("rows without label {:>14}\n", with_commas(s.without_label));
  }
  if (s.seam_differs > 0) {
    out += fmt::format("seams that differ  {:>14}   (prompt alone and prompt + answer tokenise differently)\n",
                       with_commas(s.seam_differs));
  }
  out += fmt::format("padding rows       {:>14}   (hf: a row's first token is scored on padding; ignore: it is not)\n",
                     options.pad_rows == PadRows::hf ? "hf" : "ignore");
  return out;
}

std::string trained_table(const std::vector<TrainedTensor>& tensors, std::int64_t base_parameters) {
  struct Group {
    std::set<std::int64_t> layers;
    std::int64_t tensors = 0;
    std::int64_t parameters = 0;
  };

  std::map<std::string, Group> groups;
  std::int64_t total = 0;
  for (const TrainedTensor& tensor : tensors) {
    const auto [role, layer] = role_of(tensor.name);
    Group& group = groups[role];
    if (layer >= 0) {
      group.layers.insert(layer);
    }
    ++group.tensors;
    group.parameters += tensor.parameters;
    total += tensor.parameters;
  }
  check<ValueError>(total > 0, "nothing is trained");
  std::string out =
      fmt::format("{:<34} {:>6} {:>8} {:>14} {:>9}\n", "trained", "layers", "tensors", "parameters", "% of base");
  const auto line = [&](const std::string& role, std::size_t layers, std::int64_t count, std::int64_t parameters) {
    out += fmt::format("{:<34} {:>6} {:>8} {:>14} {:>9.4f}\n", role, layers, count, with_commas(parameters),
                       100.0 * static_cast<double>(parameters) / static_cast<double>(base_parameters));
  };
  std::set<std::int64_t> layers;
  for (const auto& [role, group] : groups) {
    line(role, group.layers.size(), group.tensors, group.parameters);
    layers.insert(group.layers.begin(), group.layers.end());
  }
  line("all", layers.size(), static_cast<std::int64_t>(tensors.size()), total);
  return out;
}

int interrupted() {
  return g_signal;
}

void watch_signals() {
  struct sigaction action {};

  action.sa_handler = on_signal;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

ProcessMemory process_memory() {
  return {proc_value("/proc/self/status", "VmHWM:"), proc_value("/proc/self/status", "RssAnon:")};
}

std::int64_t available_memory() {
  return proc_value("/proc/meminfo", "MemAvailable:");
}

}  // namespace perft::cli

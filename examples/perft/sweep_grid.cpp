// The cells of a sweep.

#include "sweep_grid.hpp"

#include <algorithm>  // std::replace
#include <array>      // names
#include <set>        // names that are taken

#include "config_json.hpp"
#include "nearest_name.hpp"
#include "option_rules.hpp"
#include "option_table.hpp"

namespace perft::cli {

namespace {

constexpr std::size_t kMostCells = 10000;
constexpr std::size_t kLongestName = 150;  // file systems end at 255, and ".toml" and "_2" may follow
/// Options of finetune that belong to the sweep.
constexpr std::array<const char*, 4> kSetBySweep = {"out", "config", "json", "resume"};

using Settings = std::vector<std::pair<std::string, ConfigValue>>;

/// finetune's options by name, for their order and kind.
class FinetuneTable {
 public:
  FinetuneTable() {
    describe(table_, options_);
    for (const Option& option : table_.options()) {
      names_.push_back(option.name);
    }
  }

  /// `key` as the command line spells it. Throws IoError for one that finetune does not have or the sweep sets.
  std::string checked_name(const std::string& key, const std::string& where) {
    std::string name = key;
    std::replace(name.begin(), name.end(), '_', '-');
    check<IoError>(table_.find(name) != nullptr, where, ": unknown key '", key, "'", did_you_mean(name, names_));
    for (const char* own : kSetBySweep) {
      check<IoError>(name != own, where, ": '", key, "' is set by the sweep; leave it out");
    }
    return name;
  }

  bool is_list(const std::string& name) { return table_.find(name)->kind == OptionKind::list; }

  const std::vector<std::string>& names() const { return names_; }

 private:
  FinetuneOptions options_;
  OptionTable table_;
  std::vector<std::string> names_;
};

/// One table `grid`: its options in finetune's order, each with its values.
using Axes = std::vector<std::pair<std::string, std::vector<ConfigValue>>>;

Axes read_axes(const Json& table, const std::string& path, const std::string& where, FinetuneTable& known) {
  check<IoError>(table.is_object() && !table.empty(), where, ": is ", table.is_object() ? "empty" : table.type_name(),
                 ", expected a table of options and the values to cross");
  std::map<std::string, std::vector<ConfigValue>> values;
  for (const auto& [key, value] : table.items()) {
    const std::string name = known.checked_name(key, where);
    check<IoError>(!values.contains(name), where, ": key '", key, "' stands there twice, once with - and once with _");
    std::vector<ConfigValue>& axis = values[name];
    if (!value.is_array()) {
      axis.push_back(config_value(value, path, key));
      continue;
    }
    check<IoError>(!value.empty(), where, ": ", key, " is empty, expected at least one value");
    for (const Json& item : value) {
      check<IoError>(!item.is_array() || known.is_list(name), where, ": ", key,
                     ": a list in the list, expected single values");
      axis.push_back(config_value(item, path, key));
    }
  }
  Axes axes;
  for (const std::string& name : known.names()) {
    if (const auto found = values.find(name); found != values.end()) {
      axes.emplace_back(name, found->second);
    }
  }
  return axes;
}

/// Every combination of one value of each axis, the last axis fastest.
std::vector<Settings> combinations(const Axes& axes, const std::string& where) {
  std::vector<Settings> out(1);
  for (const auto& [name, values] : axes) {
    check<IoError>(out.size() * values.size() <= kMostCells, where, ": stands for more than ", kMostCells,
                   " cells; cut it");
    std::vector<Settings> longer;
    for (const Settings& settings : out) {
      for (const ConfigValue& value : values) {
        longer.push_back(settings);
        longer.back().emplace_back(name, value);
      }
    }
    out = std::move(longer);
  }
  return out;
}

/// A value as names and tables show it: no quotes, lists with "+".
std::string plain_text(const ConfigValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) {
    return *text;
  }
  if (const auto* list = std::get_if<std::vector<std::string>>(&value)) {
    std::string out;
    for (const std::string& item : *list) {
      out += (out.empty() ? "" : "+") + item;
    }
    return out;
  }
  return RunConfig::value_text(value);
}

/// "perft-r_experts-4_rank-8".
std::string cell_name(const std::map<std::string, std::string>& varied, const std::vector<std::string>& keys) {
  std::string name;
  for (const std::string& key : keys) {
    if (const auto found = varied.find(key); found != varied.end()) {
      name += (name.empty() ? "" : "_") + (key == "method" ? "" : key + "-") + found->second;
    }
  }
  for (char& c : name) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       std::string_view("._+-").find(c) != std::string_view::npos;
    c = plain ? c : c == ',' ? '+' : '-';
  }
  return (name.empty() || name[0] == '.' ? "cell" + name : name).substr(0, kLongestName);
}

/// What the command line gives for all cells.
void override_with(const SweepOptions& given, FinetuneOptions& options, OptionTable& table) {
  const auto take = [&table](const char* name, auto& target, const auto& value, bool is_given) {
    if (is_given) {
      target = value;
      table.find(name)->given = true;
    }
  };
  take("model", options.model, given.model, !given.model.empty());
  take("data", options.data, given.data, !given.data.empty());
  take("dtype", options.dtype, given.dtype, given.dtype.has_value());
  take("threads", options.threads, given.threads, given.threads.has_value());
}

RunConfig given_options(OptionTable& table) {
  RunConfig config;
  for (const Option& option : table.options()) {
    if (const auto value = option.get(); option.given && value) {
      config.add(option.name, *value);
    }
  }
  return config;
}

}  // namespace

SweepGrid read_grid(const SweepOptions& options) {
  const std::string& path = options.grid;
  const Json file = read_config_json(path);
  check<IoError>(file.is_object(), path, ": is ", file.type_name(), ", expected tables 'options' and 'grid'");
  for (const auto& [key, value] : file.items()) {
    check<IoError>(key == "options" || key == "grid", path, ": unknown key '", key, "', expected options and grid",
                   did_you_mean(key, {"options", "grid"}));
  }
  check<IoError>(file.contains("grid"), path, ": no table 'grid', expected one with the options to cross");
  FinetuneTable known;
  Settings shared;
  if (file.contains("options")) {
    const std::string where = path + ": options";
    check<IoError>(file["options"].is_object(), where, ": is ", file["options"].type_name(),
                   ", expected a table of options");
    for (const auto& [key, value] : file["options"].items()) {
      shared.emplace_back(known.checked_name(key, where), config_value(value, path, key));
    }
  }
  std::vector<Settings> wanted;
  const Json grids = file["grid"].is_array() ? file["grid"] : Json::array({file["grid"]});
  for (std::size_t i = 0; i < grids.size(); ++i) {
    const Json& grid = grids[i];
    const std::string where = path + (grids.size() == 1 ? ": grid" : ": grid " + std::to_string(i + 1));
    for (Settings& settings : combinations(read_axes(grid, path, where, known), where)) {
      for (const auto& [name, value] : shared) {
        check<IoError>(std::none_of(settings.begin(), settings.end(), [&](const auto& s) { return s.first == name; }),
                       where, ": '", name, "' stands in options, too; give it once");
      }
      wanted.push_back(std::move(settings));
      check<IoError>(wanted.size() <= kMostCells, path, ": stands for more than ", kMostCells, " cells; cut it");
    }
  }

  // What differs between cells, the absence of an option included.
  SweepGrid out;
  for (const std::string& name : known.names()) {
    std::set<std::string> values;
    for (const Settings& settings : wanted) {
      const auto at = std::find_if(settings.begin(), settings.end(), [&](const auto& s) { return s.first == name; });
      values.insert(at == settings.end() ? "" : RunConfig::value_text(at->second));
    }
    if (values.size() > 1) {
      out.keys.push_back(name);
    }
  }

  std::map<std::string, std::string> by_options;  // name of the cell with these options
  std::set<std::string> taken;
  for (const Settings& settings : wanted) {
    SweepCell cell;
    RunConfig config;
    for (const Settings* part : {&std::as_const(shared), &settings}) {
      for (const auto& [name, value] : *part) {
        config.add(name, value);
      }
    }
    for (const auto& [name, value] : settings) {
      if (std::find(out.keys.begin(), out.keys.end(), name) != out.keys.end()) {
        cell.varied[name] = plain_text(value);
      }
    }
    cell.name = cell_name(cell.varied, out.keys);
    FinetuneOptions finetune;
    OptionTable table;
    describe(table, finetune);
    table.set_from_config(config, path);
    override_with(options, finetune, table);
    const std::string same = given_options(table).to_toml();
    if (const auto found = by_options.find(same); found != by_options.end()) {
      out.left_out.emplace_back(cell.name, "it is " + found->second + " once more");
      continue;
    }
    for (int i = 2; !taken.insert(cell.name).second; ++i) {
      cell.name = cell_name(cell.varied, out.keys) + "_" + std::to_string(i);
    }
    by_options[same] = cell.name;
    finetune.out = options.out + "/" + cell.name;
    table.find("out")->given = true;
    cell.options = given_options(table);
    try {
      settle(table, finetune, true);
      out.cells.push_back(std::move(cell));
    } catch (const UsageError& error) {
      out.left_out.emplace_back(cell.name, error.what());
    }
  }
  check<IoError>(!out.cells.empty(), path, ": no cell is left to run; the first, ",
                 out.left_out.empty() ? "" : out.left_out[0].first,
                 ", is left out: ", out.left_out.empty() ? "" : out.left_out[0].second);
  for (const RunConfig::Entry& entry : out.cells[0].options.entries()) {
    if (entry.name != "out" && std::find(out.keys.begin(), out.keys.end(), entry.name) == out.keys.end()) {
      out.shared.add(entry.name, entry.value);
    }
  }
  return out;
}

}  // namespace perft::cli

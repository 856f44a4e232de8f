#pragma once
// Config files that are more than a flat list: sections and lists of them.

#include <string>  // paths

#include "perft/io/json.hpp"
#include "perft/train/run_config.hpp"

namespace perft::cli {

/// The file `path`, TOML or JSON by its name, as JSON. Throws IoError naming file and line if it cannot be read or
/// parsed.
Json read_config_json(const std::string& path);

/// A number, text, true or false, or array of texts as a setting. Throws IoError naming file and key for anything else.
ConfigValue config_value(const Json& value, const std::string& path, const std::string& key);

}  // namespace perft::cli

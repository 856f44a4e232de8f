#pragma once
// Settings from a TOML or JSON file: what `--config` and a run's `run.toml` hold.

#include <string>  // path

#include "perft/train/run_config.hpp"

namespace perft::cli {

/// Whether the name ends in .toml or .json.
bool is_config_name(const std::string& path);

/// The flat settings in the file `path`, TOML or JSON by its name. Throws IoError, with the file and the line or key in
/// the text, if it cannot be read or parsed, or holds anything but numbers, texts, true or false, and arrays of texts.
RunConfig read_config_file(const std::string& path);

}  // namespace perft::cli

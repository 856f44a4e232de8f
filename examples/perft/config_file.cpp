// Reads TOML with toml++ and JSON with nlohmann-json into the same flat settings.

#include "config_file.hpp"

#include <toml++/toml.h>  // TOML

#include <cstdint>  // std::int64_t
#include <limits>   // unsigned numbers
#include <sstream>  // TOML as JSON
#include <utility>  // std::move
#include <vector>   // arrays

#include "config_json.hpp"
#include "perft/core/error.hpp"
#include "perft/io/mapped_file.hpp"  // read_text_file

namespace perft::cli {

namespace {

[[noreturn]] void refuse(const std::string& path, const std::string& key) {
  fail<IoError>(path, ": ", key, ": expected a number, a text, true or false, or an array of texts");
}

toml::table parse_toml(const std::string& path) {
  const std::string text = read_text_file(path);
  try {
    return toml::parse(std::string_view(text), std::string_view(path));
  } catch (const toml::parse_error& error) {
    fail<IoError>(path, ": line ", error.source().begin.line, ": not valid TOML: ", error.description());
  }
}

RunConfig read_toml(const std::string& path) {
  RunConfig config;
  for (const auto& [name, node] : parse_toml(path)) {
    const std::string key(name);
    if (const auto* text_value = node.as_string()) {
      config.add(key, text_value->get());
    } else if (const auto* integer = node.as_integer()) {
      config.add(key, integer->get());
    } else if (const auto* real = node.as_floating_point()) {
      config.add(key, real->get());
    } else if (const auto* flag = node.as_boolean()) {
      config.add(key, flag->get());
    } else if (const auto* array = node.as_array()) {
      std::vector<std::string> items;
      for (const toml::node& item : *array) {
        const auto* item_text = item.as_string();
        if (item_text == nullptr) {
          refuse(path, key);
        }
        items.push_back(item_text->get());
      }
      config.add(key, std::move(items));
    } else {
      refuse(path, key);
    }
  }
  return config;
}

RunConfig read_json(const std::string& path) {
  const Json object = parse_json_strict(read_text_file(path), path);
  check<IoError>(object.is_object(), path, ": is ", object.type_name(), ", expected an object of options");
  RunConfig config;
  for (const auto& [key, value] : object.items()) {
    config.add(key, config_value(value, path, key));
  }
  return config;
}

}  // namespace

Json read_config_json(const std::string& path) {
  if (path.ends_with(".json")) {
    return parse_json_strict(read_text_file(path), path);
  }
  std::ostringstream json;
  json << toml::json_formatter(parse_toml(path));
  return parse_json_strict(json.str(), path);
}

ConfigValue config_value(const Json& value, const std::string& path, const std::string& key) {
  if (value.is_string()) {
    return value.get<std::string>();
  }
  if (value.is_boolean()) {
    return value.get<bool>();
  }
  if (value.is_number_unsigned() &&
      value.get<std::uint64_t>() > std::uint64_t{std::numeric_limits<std::int64_t>::max()}) {
    return value.get<double>();  // beyond any whole-number option's range
  }
  if (value.is_number_integer()) {
    return value.get<std::int64_t>();
  }
  if (value.is_number()) {
    return value.get<double>();
  }
  if (!value.is_array()) {
    refuse(path, key);
  }
  std::vector<std::string> items;
  for (const Json& item : value) {
    if (!item.is_string()) {
      refuse(path, key);
    }
    items.push_back(item.get<std::string>());
  }
  return items;
}

bool is_config_name(const std::string& path) {
  return path.ends_with(".toml") || path.ends_with(".json");
}

RunConfig read_config_file(const std::string& path) {
  return path.ends_with(".json") ? read_json(path) : read_toml(path);
}

}  // namespace perft::cli

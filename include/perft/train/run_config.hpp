#pragma once
// The settings of a run as an ordered list of names and values, and their TOML text: what `run.toml` holds.

#include <charconv>     // shortest text that reads back to the same double
#include <cmath>        // std::isfinite
#include <cstdint>      // std::int64_t
#include <string>       // names, text
#include <string_view>  // lookup
#include <utility>      // std::move
#include <variant>      // the value
#include <vector>       // entries

#include "perft/core/error.hpp"

namespace perft::inline PERFT_ABI {

/// What a setting may be. A list holds strings only.
using ConfigValue = std::variant<bool, std::int64_t, double, std::string, std::vector<std::string>>;

/// Shortest decimal text that reads back to exactly `value`, with a '.' or an exponent so that TOML and JSON see a
/// float. Throws NonFiniteError.
inline std::string real_text(double value) {
  check<NonFiniteError>(std::isfinite(value), "cannot write ", value, " as a number");
  char buffer[32];
  const std::to_chars_result end = std::to_chars(buffer, buffer + sizeof buffer, value);
  std::string text(buffer, end.ptr);
  if (text.find_first_of(".e") == std::string::npos) {
    text += ".0";
  }
  return text;
}

/// A TOML basic string: quotes, backslashes and control characters escaped, everything else (UTF-8) as it is.
inline std::string toml_string(std::string_view text) {
  static constexpr char hex[] = "0123456789ABCDEF";
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      out += "\\u00";
      out += hex[byte >> 4];
      out += hex[byte & 15];
    } else {
      out += c;
    }
  }
  return out += '"';
}

/// Ordered settings. Names are those of the command line without the dashes.
class RunConfig {
 public:
  struct Entry {
    std::string name;
    ConfigValue value;
  };

  void add(std::string name, ConfigValue value) { entries_.push_back({std::move(name), std::move(value)}); }

  const std::vector<Entry>& entries() const { return entries_; }

  /// The value called `name`, or nullptr.
  const ConfigValue* find(std::string_view name) const {
    for (const Entry& entry : entries_) {
      if (entry.name == name) {
        return &entry.value;
      }
    }
    return nullptr;
  }

  /// One `name = value` line per setting, in order. The same settings give the same bytes: no time, host or path but
  /// those given.
  std::string to_toml() const {
    std::string out;
    for (const Entry& entry : entries_) {
      out += entry.name + " = " + value_text(entry.value) + "\n";
    }
    return out;
  }

  /// A value as TOML writes it.
  static std::string value_text(const ConfigValue& value) {
    if (const bool* flag = std::get_if<bool>(&value)) {
      return *flag ? "true" : "false";
    }
    if (const std::int64_t* integer = std::get_if<std::int64_t>(&value)) {
      return std::to_string(*integer);
    }
    if (const double* real = std::get_if<double>(&value)) {
      return real_text(*real);
    }
    if (const std::string* text = std::get_if<std::string>(&value)) {
      return toml_string(*text);
    }
    std::string out = "[";
    const char* separator = "";
    for (const std::string& item : std::get<std::vector<std::string>>(value)) {
      out += separator + toml_string(item);
      separator = ", ";
    }
    return out + "]";
  }

 private:
  std::vector<Entry> entries_;
};

}  // namespace perft::inline PERFT_ABI

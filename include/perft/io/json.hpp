#pragma once
// The one place that includes nlohmann-json: parsing with errors that name the file and the byte.

#include <nlohmann/json.hpp>  // parser and value type
#include <string>             // texts
#include <string_view>        // texts

#include "perft/core/error.hpp"

namespace perft::inline PERFT_ABI {

using Json = nlohmann::json;
/// Keeps the file's key order; used where we write.
using OrderedJson = nlohmann::ordered_json;

/// Parses `text`; `where` names its origin (a file as opened, "stdin:7") in the error. Throws IoError on anything that is not
/// exactly one JSON value.
inline Json parse_json(std::string_view text, const std::string& where) {
  try {
    return Json::parse(text.begin(), text.end());
  } catch (const Json::parse_error& error) {
    fail<IoError>(where, ": not valid JSON at byte ", error.byte, "; fix or replace the file");
  }
}

}  // namespace perft::inline PERFT_ABI

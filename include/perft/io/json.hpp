#pragma once
// The one place that includes nlohmann-json: parsing with errors that name the file and the byte, and quoting of
// untrusted text in messages.

#include <cstddef>            // std::size_t
#include <nlohmann/json.hpp>  // parser and value type
#include <string>             // texts
#include <string_view>        // texts
#include <unordered_set>      // keys seen in one object
#include <vector>             // stack of open objects

#include "perft/core/error.hpp"

namespace perft::inline PERFT_ABI {

using Json = nlohmann::json;
/// Keeps the file's key order; used where we write.
using OrderedJson = nlohmann::ordered_json;

/// `text` in double quotes, fit for a one-line message: control characters become \n, \x1b, …; beyond 160 bytes it is
/// cut. Names inside files are untrusted, and an error must stay one line.
inline std::string in_quotes(std::string_view text) {
  constexpr std::size_t limit = 160;  // twice the longest hub tensor name
  constexpr std::string_view hex = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text.substr(0, limit)) {
    const auto u = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (u < 0x20U || u == 0x7fU) {
      out += "\\x";
      out += hex[u >> 4U];
      out += hex[u & 15U];
    } else {
      out += c;
    }
  }
  out += text.size() > limit ? "…\"" : "\"";
  return out;
}

namespace detail {

template <class Parse>
Json parse_json_with(const Parse& parse, const std::string& where) {
  try {
    return parse();
  } catch (const Json::parse_error& error) {
    fail<IoError>(where, ": not valid JSON at byte ", error.byte, "; fix or replace the file");
  } catch (const Json::exception&) {  // out_of_range: 1e999 is grammatical but not a number we can hold
    fail<IoError>(where, ": JSON holds a number outside the range of a double; fix or replace the file");
  }
}

}  // namespace detail

/// Parses `text`; `where` names its origin (a file as opened, "stdin:7") in the error. Throws IoError on anything that
/// is not exactly one JSON value. Of duplicate keys the last wins, and nesting has
/// no bound: for lines and rows, whose values are looked at one level deep and never serialised.
inline Json parse_json(std::string_view text, const std::string& where) {
  return detail::parse_json_with([&] { return Json::parse(text.begin(), text.end()); }, where);
}

/// As parse_json, but a duplicate key (nlohmann keeps the last one silently) and nesting deeper than `max_depth` are
/// IoErrors: the form for every file with a fixed set of keys, or whose keys name data. The depth bound keeps a hostile
/// header of 10^8 brackets from taking gigabytes.
inline Json parse_json_strict(std::string_view text, const std::string& where, int max_depth = 256) {
  std::vector<std::unordered_set<std::string>> open_objects;
  const Json::parser_callback_t callback = [&](int depth, Json::parse_event_t event, Json& value) {
    switch (event) {
      case Json::parse_event_t::object_start:
        open_objects.emplace_back();
        [[fallthrough]];
      case Json::parse_event_t::array_start:
        check<IoError>(depth < max_depth, where, ": JSON nests deeper than ", max_depth,
                       " levels; the file is corrupt or not what its name says");
        break;
      case Json::parse_event_t::key: {
        const auto& key = value.get_ref<const std::string&>();
        if (!open_objects.back().insert(key).second) {
          fail<IoError>(where, ": key ", in_quotes(key),
                        " appears twice in one object, expected once; fix or replace the file");
        }
        break;
      }
      case Json::parse_event_t::object_end:
        open_objects.pop_back();
        break;
      case Json::parse_event_t::array_end:
      case Json::parse_event_t::value:
        break;
    }
    return true;
  };
  return detail::parse_json_with([&] { return Json::parse(text.begin(), text.end(), callback); }, where);
}

}  // namespace perft::inline PERFT_ABI

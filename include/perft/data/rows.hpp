#pragma once
// Rows of instruction data (instruction, output, and perhaps input) from JSON arrays and JSON Lines files.

#include <cstddef>      // std::size_t
#include <string>       // texts
#include <string_view>  // file contents
#include <utility>      // std::move
#include <vector>       // rows

#include "perft/core/error.hpp"
#include "perft/io/json.hpp"
#include "perft/io/mapped_file.hpp"  // read_text_file

namespace perft::inline PERFT_ABI {

/// One row of a data file.
struct Row {
  std::string instruction;
  std::string input;  // empty if the file has none
  std::string output;
  std::string where;  // "file: row 3", for errors
};

namespace detail {

/// The text at `key`. Throws IoError if it is missing and `required`, or is not a string.
inline std::string row_text(const Json& object, const char* key, bool required, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end()) {
    check<IoError>(!required, where, ": no key \"", key, "\"; a row needs \"instruction\" and \"output\"");
    return {};
  }
  check<IoError>(found->is_string(), where, ": \"", key, "\" is ", found->type_name(), ", expected a string");
  return found->get<std::string>();
}

inline Row read_row(const Json& object, const std::string& where) {
  check<IoError>(object.is_object(), where, ": is ", object.type_name(),
                 ", expected an object with \"instruction\" and \"output\"");
  Row row;
  row.instruction = row_text(object, "instruction", true, where);
  row.input = row_text(object, "input", false, where);
  row.output = row_text(object, "output", true, where);
  row.where = where;
  return row;
}

inline void read_json_lines(std::string_view text, const std::string& path, std::vector<Row>& rows) {
  std::size_t line = 0;
  while (!text.empty()) {
    ++line;
    const std::size_t end = text.find('\n');
    const std::string_view content = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (content.find_first_not_of(" \t\r") != std::string_view::npos) {
      const std::string where = path + ": line " + std::to_string(line);
      rows.push_back(read_row(parse_json(content, where), where));
    }
  }
}

}  // namespace detail

/// The rows in `text`, the contents of the file `path`: a JSON array of objects, or one object a line (blank lines are
/// skipped). Other keys of a row are ignored. Errors name the row (counted from 1; JSON Lines: the line) and the key.
/// Throws IoError, also if there is no row at all.
inline std::vector<Row> parse_rows(std::string_view text, const std::string& path) {
  if (text.substr(0, 3) == "\xEF\xBB\xBF") {  // the byte order mark some Windows programs write
    text.remove_prefix(3);
  }
  std::vector<Row> rows;
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  check<IoError>(first != std::string_view::npos, path, ": is empty; expected a JSON array of rows or one row a line");
  if (text[first] == '[') {
    const Json array = parse_json(text, path);
    rows.reserve(array.size());
    for (const Json& object : array) {
      rows.push_back(detail::read_row(object, path + ": row " + std::to_string(rows.size() + 1)));
    }
  } else {
    check<IoError>(text[first] == '{', path,
                   ": starts with neither [ nor {; expected a JSON array of rows or one row a line");
    detail::read_json_lines(text, path, rows);
  }
  check<IoError>(!rows.empty(), path, ": has no rows; expected at least one with \"instruction\" and \"output\"");
  return rows;
}

/// The rows of all files, in order. Throws IoError as parse_rows does, or if a file cannot be read.
inline std::vector<Row> read_rows(const std::vector<std::string>& paths) {
  std::vector<Row> rows;
  for (const std::string& path : paths) {
    for (Row& row : parse_rows(read_text_file(path), path)) {
      rows.push_back(std::move(row));
    }
  }
  return rows;
}

}  // namespace perft::inline PERFT_ABI

// perft tokenize: JSON strings to id arrays, or back, line by line.

#include "tokenize.hpp"

#include <cstddef>  // std::size_t
#include <cstdint>  // fixed-width integers
#include <istream>  // lines in
#include <limits>   // id range
#include <ostream>  // lines out
#include <string>   // lines
#include <vector>   // ids

#include "perft/io/json.hpp"
#include "perft/text/tokenizer.hpp"

namespace perft::cli {
namespace {

std::string encode_line(const Tokenizer& tokenizer, const Json& value, const std::string& where, bool special) {
  check<ValueError>(value.is_string(), where, ": expected a JSON string, got ", value.type_name());
  std::string line = "[";
  const char* separator = "";
  for (const std::int32_t id : tokenizer.encode(value.get_ref<const std::string&>(), special)) {
    line.append(separator).append(std::to_string(id));
    separator = ", ";
  }
  return line + "]";
}

std::string decode_line(const Tokenizer& tokenizer, const Json& value, const std::string& where, bool keep_special) {
  check<ValueError>(value.is_array(), where, ": expected a JSON array of token ids, got ", value.type_name());
  std::vector<std::int32_t> ids;
  ids.reserve(value.size());
  for (std::size_t i = 0; i < value.size(); ++i) {
    const bool fits = value[i].is_number_unsigned() &&
                      value[i].get<std::uint64_t>() <= std::uint64_t{std::numeric_limits<std::int32_t>::max()};
    check<ValueError>(fits, where, ": element ", i, " is no token id, expected an integer ≥ 0 and < ",
                      tokenizer.vocab_size());
    ids.push_back(value[i].get<std::int32_t>());
  }
  try {
    return Json(tokenizer.decode(ids, !keep_special)).dump(-1, ' ', true);
  } catch (const ValueError& error) {
    fail<ValueError>(where, ": ", error.what());
  }
}

}  // namespace

int run_tokenize(const TokenizeOptions& options, std::istream& in, std::ostream& out) {
  const Tokenizer tokenizer = Tokenizer::load(options.model + "/tokenizer.json");
  std::string line;
  for (std::size_t number = 1; std::getline(in, line); ++number) {
    const std::string where = "stdin:" + std::to_string(number);
    try {
      const Json value = parse_json(line, where);
      out << (options.decode ? decode_line(tokenizer, value, where, options.keep_special_tokens)
                             : encode_line(tokenizer, value, where, !options.no_special_tokens))
          << '\n';
    } catch (...) {
      out.flush();
      throw;
    }
    check<IoError>(out.good(), "stdout: cannot write all results; check the disk or the reading program");
  }
  check<IoError>(!in.bad(), "stdin: cannot be read; expected lines of JSON");
  out.flush();
  return 0;
}

}  // namespace perft::cli

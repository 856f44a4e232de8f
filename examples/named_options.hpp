#pragma once
// Command lines of the one-file examples: `--name value` pairs, each known beforehand with its default.

#include <charconv>     // numbers
#include <cstdint>      // whole numbers
#include <limits>       // no infinity
#include <map>          // by name
#include <string>       // texts
#include <string_view>  // arguments

#include "perft/core/error.hpp"

namespace perft::examples {

/// `texts` and `numbers` and `reals` hold the defaults, and after parse() what was given. `help` names where the list
/// of options stands.
struct NamedOptions {
  std::map<std::string, std::string, std::less<>> texts;
  std::map<std::string, std::int64_t, std::less<>> numbers;
  std::map<std::string, double, std::less<>> reals;

  /// Throws ValueError for a name that is in none of the maps, a missing value, a number that is not one or is below 0.
  void parse(int argc, char** argv, std::string_view help) {
    for (int i = 1; i < argc; i += 2) {
      const std::string_view name = argv[i];
      const auto text = texts.find(name);
      const auto number = numbers.find(name);
      const auto real = reals.find(name);
      check<ValueError>(text != texts.end() || number != numbers.end() || real != reals.end(), "unknown option ", name,
                        "; ", help);
      check<ValueError>(i + 1 < argc, name, " needs a value");
      const std::string_view value = argv[i + 1];
      if (text != texts.end()) {
        text->second = value;
      } else if (number != numbers.end()) {
        read(name, value, number->second, "a whole number");
      } else {
        read(name, value, real->second, "a number");
      }
    }
  }

  const std::string& text(std::string_view name) const { return texts.find(name)->second; }

  std::int64_t number(std::string_view name) const { return numbers.find(name)->second; }

  double real(std::string_view name) const { return reals.find(name)->second; }

 private:
  template <class T>
  static void read(std::string_view name, std::string_view value, T& into, const char* what) {
    const auto end = std::from_chars(value.data(), value.data() + value.size(), into);
    check<ValueError>(end.ec == std::errc{} && end.ptr == value.data() + value.size() && into >= 0 &&
                          into <= std::numeric_limits<T>::max(),
                      name, " is '", value, "', expected ", what, " of at least 0");
  }
};

}  // namespace perft::examples

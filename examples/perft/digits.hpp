#pragma once
// Large numbers as tables show them.

#include <cstdint>  // counts
#include <string>   // digits

namespace perft::cli {

/// 12877824 -> "12,877,824"; `value` is not negative.
inline std::string with_commas(std::int64_t value) {
  std::string digits = std::to_string(value);
  for (std::size_t at = digits.size(); at > 3;) {
    at -= 3;
    digits.insert(at, ",");
  }
  return digits;
}

}  // namespace perft::cli

#pragma once
// Which valid name someone probably meant.

#include <algorithm>    // std::min
#include <cstddef>      // std::size_t
#include <string>       // names
#include <string_view>  // names
#include <vector>       // one row of the distance table

namespace perft::cli {

/// Edits (insert, delete, replace, swap neighbours) that turn `a` into `b`, upper and lower case being the same.
/// Source: optimal string alignment.
inline std::size_t edit_distance(std::string_view a, std::string_view b) {
  const auto same = [](char x, char y) {
    const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
    return lower(x) == lower(y);
  };
  std::vector<std::size_t> before(b.size() + 1);
  std::vector<std::size_t> last(b.size() + 1);
  std::vector<std::size_t> now(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) {
    last[j] = j;
  }
  for (std::size_t i = 1; i <= a.size(); ++i) {
    now[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      now[j] = std::min({last[j] + 1, now[j - 1] + 1, last[j - 1] + (same(a[i - 1], b[j - 1]) ? 0U : 1U)});
      if (i > 1 && j > 1 && same(a[i - 1], b[j - 2]) && same(a[i - 2], b[j - 1])) {
        now[j] = std::min(now[j], before[j - 2] + 1);
      }
    }
    before.swap(last);
    last.swap(now);
  }
  return last[b.size()];
}

/// "; did you mean NAME?" for the valid name nearest to `wrong`, or nothing if none is near (more than a third of the
/// letters wrong, at least two allowed). Of equally near ones the first.
inline std::string did_you_mean(std::string_view wrong, const std::vector<std::string>& valid) {
  std::size_t best = std::max<std::size_t>(2, wrong.size() / 3) + 1;
  const std::string* nearest = nullptr;
  for (const std::string& name : valid) {
    const std::size_t distance = edit_distance(wrong, name);
    if (distance < best && distance < name.size()) {
      best = distance;
      nearest = &name;
    }
  }
  return nearest == nullptr ? std::string() : "; did you mean " + *nearest + "?";
}

}  // namespace perft::cli

#pragma once
// Rows that occur more than once, inside the part that is trained and across the split: what a report of data warns of.

#include <cstdint>        // counts
#include <span>           // rows
#include <string>         // prompts
#include <string_view>    // ids as bytes
#include <unordered_set>  // what was seen

#include "perft/core/error.hpp"
#include "perft/data/batch.hpp"
#include "perft/data/order.hpp"
#include "perft/data/rows.hpp"

namespace perft::inline PERFT_ABI {

struct Duplicates {
  std::int64_t repeated = 0;      // rows to train that equal an earlier one, token by token
  std::int64_t seen_rows = 0;     // held-back rows that are also trained, token by token: their loss is of a known text
  std::int64_t seen_prompts = 0;  // held-back rows whose instruction and input are also trained, with another answer
};

namespace detail {

/// A row's tokens as bytes, to be hashed and compared.
inline std::string_view token_bytes(const EncodedRow& row) {
  return {reinterpret_cast<const char*>(row.ids.data()), row.ids.size() * sizeof(row.ids[0])};
}

/// Instruction and input with a border between them that no two different pairs share.
inline std::string prompt_key(const Row& row) {
  return std::to_string(row.instruction.size()) + ":" + row.instruction + row.input;
}

}  // namespace detail

/// Counts what of `encoded` (rows [n], as `rows` were encoded: cut rows count as what is left of them) occurs more than
/// once under `split`. Exact: tokens and texts are compared, not their hashes alone. O(total length).
/// Throws ShapeError unless both have the same length.
inline Duplicates find_duplicates(std::span<const Row> rows, std::span<const EncodedRow> encoded,
                                  const RowSplit& split) {
  check<ShapeError>(rows.size() == encoded.size(), "find_duplicates: ", rows.size(), " rows and ", encoded.size(),
                    " encoded ones, expected as many");
  Duplicates found;
  std::unordered_set<std::string_view> trained;
  trained.reserve(split.train.size());
  for (const std::int64_t i : split.train) {
    found.repeated += trained.insert(detail::token_bytes(encoded[static_cast<std::size_t>(i)])).second ? 0 : 1;
  }
  if (split.validation.empty()) {
    return found;
  }
  // Of the prompts only those of the few held-back rows are kept.
  std::unordered_set<std::string> held_back;
  for (const std::int64_t i : split.validation) {
    held_back.insert(detail::prompt_key(rows[static_cast<std::size_t>(i)]));
  }
  std::unordered_set<std::string> shared;
  for (const std::int64_t i : split.train) {
    if (std::string key = detail::prompt_key(rows[static_cast<std::size_t>(i)]); held_back.contains(key)) {
      shared.insert(std::move(key));
    }
  }
  for (const std::int64_t i : split.validation) {
    const auto at = static_cast<std::size_t>(i);
    const bool row = trained.contains(detail::token_bytes(encoded[at]));
    found.seen_rows += row ? 1 : 0;
    found.seen_prompts += !row && shared.contains(detail::prompt_key(rows[at])) ? 1 : 0;
  }
  return found;
}

}  // namespace perft::inline PERFT_ABI

#pragma once
// Which row is trained when: the validation split and the shuffled order of every epoch, functions of the seed alone.

#include <algorithm>  // std::sort
#include <cstdint>    // fixed-width integers
#include <limits>     // how many rows a shuffle may have
#include <numeric>    // std::iota
#include <utility>    // std::swap
#include <vector>     // orders

#include "perft/core/error.hpp"
#include "perft/core/rng.hpp"

namespace perft::inline PERFT_ABI {

namespace detail {

/// Streams of the seed that order data; initialisation uses others, so neither moves the other.
inline constexpr std::uint64_t kSplitStream = std::uint64_t{0x73706c69} << 32;  // "spli"
inline constexpr std::uint64_t kEpochStream = std::uint64_t{0x65706f63} << 32;  // "epoc", plus the epoch

/// Fisher-Yates.
inline void shuffle(std::vector<std::int64_t>& items, std::uint64_t seed, std::uint64_t stream) {
  check<ValueError>(items.size() <= std::numeric_limits<std::uint32_t>::max(), "data: more than 2^32 - 1 rows");
  PhiloxStream random(seed, stream);
  for (std::size_t left = items.size(); left > 1; --left) {
    std::swap(items[left - 1], items[random.below(static_cast<std::uint32_t>(left))]);
  }
}

}  // namespace detail

/// Row indices of the two parts, each ascending.
struct RowSplit {
  std::vector<std::int64_t> train;
  std::vector<std::int64_t> validation;
};

/// Holds `val_size` of `rows` rows back, drawn by `seed`. 0 holds none back. Throws ValueError if none is left to
/// train.
inline RowSplit split_rows(std::int64_t rows, std::int64_t val_size, std::uint64_t seed) {
  check<ValueError>(val_size >= 0 && val_size < rows, "data: --val-size ", val_size, " leaves no row of ", rows,
                    " to train on; lower it");
  std::vector<std::int64_t> order(static_cast<std::size_t>(rows));
  std::iota(order.begin(), order.end(), 0);
  detail::shuffle(order, seed, detail::kSplitStream);
  const auto border = order.begin() + static_cast<std::ptrdiff_t>(val_size);
  RowSplit split{{border, order.end()}, {order.begin(), border}};
  std::sort(split.train.begin(), split.train.end());
  std::sort(split.validation.begin(), split.validation.end());
  return split;
}

/// The rows of `epoch` (from 0) in the order they are trained: a permutation of `rows`.
inline std::vector<std::int64_t> epoch_order(std::vector<std::int64_t> rows, std::int64_t epoch, std::uint64_t seed) {
  detail::shuffle(rows, seed, detail::kEpochStream + static_cast<std::uint64_t>(epoch));
  return rows;
}

/// A half-open range of indices.
struct IndexRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;

  std::int64_t size() const { return end - begin; }
};

/// [0, count) in pieces of `size`; the last may be shorter. Cuts an epoch into optimizer steps and a batch into
/// micro-batches. Throws ValueError if size < 1.
inline std::vector<IndexRange> pieces(std::int64_t count, std::int64_t size) {
  check<ValueError>(size >= 1, "data: batches of ", size, " rows, expected at least 1");
  std::vector<IndexRange> out;
  for (std::int64_t begin = 0; begin < count; begin += size) {
    out.push_back({begin, std::min(count, begin + size)});
  }
  return out;
}

}  // namespace perft::inline PERFT_ABI

#pragma once
// A ragged micro-batch: the tokens of several rows one after another, without padding rows.

#include <cstdint>  // fixed-width integers
#include <vector>   // columns

#include "perft/core/config.hpp"

namespace perft::inline PERFT_ABI {

/// One attention row: tokens [begin, begin + queries) of the batch. Its first `keys` tokens are keys. Query i (counted
/// from 0 inside the segment) sees the keys j with max(0, i - window + 1) <= j <= min(i, keys - 1). keys == queries is
/// an ordinary causal row; queries > keys adds right-padding positions (they look but are never seen); keys == 0 is a
/// padding token that sees nothing, whose attention output is 0.
struct Segment {
  std::int32_t begin = 0;
  std::int32_t queries = 0;
  std::int32_t keys = 0;
};

/// Tokens of a micro-batch and what each of them is for. T = number of tokens, n = number of scored targets.
struct Batch {
  std::vector<std::int32_t> ids;         // [T] token ids in [0, V)
  std::vector<std::int32_t> positions;   // [T] RoPE positions
  std::vector<Segment> segments;         // ascending, covering [0, T)
  std::vector<std::uint8_t> real;        // [T] 1 = counts in the load-balance loss, 0 = a padding token
  std::vector<std::int32_t> loss_rows;   // [n] the token whose hidden state predicts ...
  std::vector<std::int32_t> targets;     // [n] ... this id
  std::vector<std::int32_t> target_row;  // [n] the target's row in the whole batch, whoever predicts it
  std::vector<std::int32_t> row;     // [T] row in the whole (accumulated) batch, -1 for a padding token: key of dropout
  std::vector<std::int32_t> column;  // [T] position inside the row: key of dropout
  std::int64_t rows = 0;             // rows in this micro-batch
  std::int64_t padded_length = 0;    // columns of the padded form this batch stands for

  std::int64_t tokens() const { return static_cast<std::int64_t>(ids.size()); }
};

}  // namespace perft::inline PERFT_ABI

#pragma once
// Ragged micro-batches for training: rows one after another, labels shifted by one, and what padding means for the
// loss.

#include <algorithm>  // std::max
#include <cstdint>    // fixed-width integers
#include <limits>     // how many tokens a batch may have
#include <span>       // rows
#include <vector>     // columns

#include "perft/core/batch.hpp"
#include "perft/core/error.hpp"

namespace perft::inline PERFT_ABI {

/// Whether a padding position may predict a target. With left padding transformers scores a row's last padding position
/// on the row's first real token: `hf` does the same, `ignore` leaves such targets out.
enum class PadRows : std::uint8_t { ignore, hf };

/// The label of a token that is not to be learned.
inline constexpr std::int32_t kIgnoredLabel = -100;

/// One encoded row: `labels[i]` is `ids[i]` or kIgnoredLabel. Both have the same length.
struct EncodedRow {
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> labels;
};

/// Columns of the padded form of `rows`: the longest row, rounded up to a multiple of `multiple` (8 as published).
/// Take it over the whole accumulated batch, not over a micro-batch.
inline std::int64_t padded_columns(std::span<const EncodedRow> rows, std::int64_t multiple = 8) {
  std::int64_t longest = 0;
  for (const EncodedRow& row : rows) {
    longest = std::max(longest, static_cast<std::int64_t>(row.ids.size()));
  }
  return (longest + multiple - 1) / multiple * multiple;
}

/// Tokens of `batch` that are not padding.
inline std::int64_t real_tokens(const Batch& batch) {
  std::int64_t count = 0;
  for (const std::uint8_t real : batch.real) {
    count += real;
  }
  return count;
}

namespace detail {

/// Appends one token. `row` is -1 for a padding token.
inline void append_token(Batch& batch, std::int32_t id, std::int32_t position, std::int32_t row, std::int32_t column) {
  batch.ids.push_back(id);
  batch.positions.push_back(position);
  batch.real.push_back(row >= 0 ? 1 : 0);
  batch.row.push_back(row);
  batch.column.push_back(column);
}

/// Appends a token that sees nothing and is seen by nothing. Its hidden state depends on its id alone.
inline std::int32_t append_blind_token(Batch& batch, std::int32_t id) {
  const auto token = static_cast<std::int32_t>(batch.ids.size());
  append_token(batch, id, 0, -1, 0);
  batch.segments.push_back({token, 1, 0});
  return token;
}

inline void append_target(Batch& batch, std::int32_t token, std::int32_t target, std::int32_t row) {
  batch.loss_rows.push_back(token);
  batch.targets.push_back(target);
  batch.target_row.push_back(row);
}

}  // namespace detail

/// Micro-batch of `rows` for training: token t of a row predicts label t + 1 wherever that is not kIgnoredLabel.
///
/// rows        [R] encoded rows, none empty
/// row_offset  index of rows[0] in the accumulated batch: dropout masks depend on it and not on the micro-batch
/// mode        `ignore`: positions are 0 ... length-1 and a row's first token is never a target. `hf`: the rows stand
///             left-padded in `columns` columns, so positions start at the number of padding columns, and a row with at
///             least one of them has its first token predicted by padding. All padding positions are one and the same
///             token (attention output 0, equal hidden states), so one pad token per micro-batch stands for them all;
///             there is none if no row needs it.
/// columns     `padded_columns` of the whole accumulated batch; not read with `ignore`
/// pad_id      id of the padding token; not read with `ignore`
/// The mean loss of a step divides by the number of targets of all its micro-batches.
/// Throws ShapeError for an empty row, labels of another length, or a row longer than `columns` (hf).
/// Source: transformers' left-padding collator and ForCausalLMLoss (nothing there looks at the attention mask).
inline Batch ragged_batch(std::span<const EncodedRow> rows, std::int32_t row_offset, PadRows mode, std::int64_t columns,
                          std::int32_t pad_id) {
  Batch batch;
  batch.rows = static_cast<std::int64_t>(rows.size());
  std::int64_t longest = 0;
  std::vector<std::size_t> predicted_by_padding;  // rows
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const EncodedRow& row = rows[r];
    const auto length = static_cast<std::int64_t>(row.ids.size());
    check<ShapeError>(length > 0, "ragged_batch: row ", r, " has no tokens");
    check<ShapeError>(row.labels.size() == row.ids.size(), "ragged_batch: row ", r, " has ", row.labels.size(),
                      " labels, expected ", length, " (one per token)");
    check<ShapeError>(mode == PadRows::ignore || length <= columns, "ragged_batch: row ", r, " has ", length,
                      " tokens, expected at most ", columns, " (columns of the padded batch)");
    check<ShapeError>(batch.tokens() + length < std::numeric_limits<std::int32_t>::max(),
                      "ragged_batch: more than 2^31 - 2 tokens in one micro-batch");
    longest = std::max(longest, length);
    const auto begin = static_cast<std::int32_t>(batch.ids.size());
    const auto first = static_cast<std::int32_t>(mode == PadRows::hf ? columns - length : 0);
    const std::int32_t index = row_offset + static_cast<std::int32_t>(r);
    for (std::int32_t i = 0; i < static_cast<std::int32_t>(length); ++i) {
      const auto at = static_cast<std::size_t>(i);
      detail::append_token(batch, row.ids[at], first + i, index, i);
      if (i > 0 && row.labels[at] != kIgnoredLabel) {
        detail::append_target(batch, begin + i - 1, row.labels[at], index);
      }
    }
    batch.segments.push_back({begin, static_cast<std::int32_t>(length), static_cast<std::int32_t>(length)});
    if (mode == PadRows::hf && first > 0 && row.labels[0] != kIgnoredLabel) {
      predicted_by_padding.push_back(r);
    }
  }
  if (!predicted_by_padding.empty()) {
    const std::int32_t pad = detail::append_blind_token(batch, pad_id);
    for (const std::size_t r : predicted_by_padding) {
      detail::append_target(batch, pad, rows[r].labels[0], row_offset + static_cast<std::int32_t>(r));
    }
  }
  batch.padded_length = mode == PadRows::hf ? columns : longest;
  return batch;
}

}  // namespace perft::inline PERFT_ABI

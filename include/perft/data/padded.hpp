#pragma once
// A padded batch (input_ids, attention_mask, labels) as ragged tokens that compute exactly what transformers computes
// on the padded form, and where in the padded form each token's logits belong.

#include <cstdint>   // fixed-width integers
#include <limits>    // how many tokens a batch may have
#include <map>       // one token per distinct id of the left padding
#include <optional>  // labels may be absent
#include <span>      // tensors
#include <string>    // the file's name in errors
#include <vector>    // columns

#include "perft/core/batch.hpp"
#include "perft/core/error.hpp"
#include "perft/data/batch.hpp"

namespace perft::inline PERFT_ABI {

/// An integer tensor as a file holds it: row-major values and their shape.
struct IntegerTensor {
  std::span<const std::int64_t> values;
  std::span<const std::int64_t> shape;
};

/// A padded batch in ragged form. B rows, S columns.
struct PaddedBatch {
  Batch batch;
  std::int64_t columns = 0;                // S
  std::vector<std::int32_t> logit_source;  // [B*S] token of `batch` whose logits stand at (row, column)
  bool has_labels = false;                 // false: batch.loss_rows is empty and there is no loss
};

namespace detail {

inline void check_padded_shape(const std::string& where, const char* name, const IntegerTensor& tensor,
                               std::span<const std::int64_t> expected) {
  check<IoError>(std::vector<std::int64_t>(tensor.shape.begin(), tensor.shape.end()) ==
                     std::vector<std::int64_t>(expected.begin(), expected.end()),
                 where, ": ", name, " has shape ", tensor.shape, ", expected ", expected, " like input_ids");
}

/// The real tokens of a row: columns [begin, end).
struct RealColumns {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

inline RealColumns real_columns(const std::string& where, std::span<const std::int64_t> mask, std::int64_t row) {
  RealColumns real;
  const auto columns = static_cast<std::int64_t>(mask.size());
  for (std::int64_t c = 0; c < columns; ++c) {
    const std::int64_t value = mask[static_cast<std::size_t>(c)];
    check<IoError>(value == 0 || value == 1, where, ": attention_mask: row ", row, ", column ", c, " is ", value,
                   ", expected 0 or 1");
    if (value == 0) {
      continue;
    }
    if (real.end == 0) {
      real = {c, c + 1};
    } else {
      check<IoError>(real.end == c, where, ": attention_mask: row ", row, " has a hole before column ", c,
                     "; the real tokens of a row must be contiguous");
      real.end = c + 1;
    }
  }
  return real;
}

}  // namespace detail

/// Ragged form of the padded batch that `perft score` reads.
///
/// where   the file's name, for errors; rows and columns in them count from 0
/// ids     input_ids [B, S], each in [0, V)
/// mask    attention_mask [B, S], 0 or 1, the ones of a row side by side; a row may have none
/// labels  [B, S], each in [0, V) or -100; absent: logits only
/// vocab   V
/// mode    `hf`: every label after the shift counts, whatever position predicts it; `ignore`: only those that a real
///         token predicts
/// A padding position before a row's tokens (or in a row without any) sees nothing, so its hidden state is a function
/// of its id: one token stands for all that share an id. One after them sees the row's real tokens and stays in the
/// row's segment as a query that is never a key. Positions are columns. Padding tokens have row -1 and real 0. Throws
/// IoError for anything else, and if labels are given but none is left after the shift. Source: transformers with sdpa
/// attention and position ids 0 ... S-1 for every row.
inline PaddedBatch from_padded(const std::string& where, const IntegerTensor& ids, const IntegerTensor& mask,
                               const std::optional<IntegerTensor>& labels, std::int64_t vocab, PadRows mode) {
  check<IoError>(ids.shape.size() == 2 && ids.shape[0] > 0 && ids.shape[1] > 0, where, ": input_ids has shape ",
                 ids.shape, ", expected [rows, columns], both at least 1");
  const std::int64_t rows = ids.shape[0];
  const std::int64_t columns = ids.shape[1];
  check<IoError>(rows < std::numeric_limits<std::int32_t>::max() / columns, where, ": input_ids has shape ", ids.shape,
                 "; at most 2^31 - 2 tokens fit one batch");
  detail::check_padded_shape(where, "attention_mask", mask, ids.shape);
  if (labels) {
    detail::check_padded_shape(where, "labels", *labels, ids.shape);
  }

  PaddedBatch out;
  out.columns = columns;
  out.has_labels = labels.has_value();
  out.logit_source.assign(static_cast<std::size_t>(rows * columns), -1);
  Batch& batch = out.batch;
  batch.rows = rows;
  batch.padded_length = columns;

  std::vector<detail::RealColumns> real;
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto at = static_cast<std::size_t>(r * columns);
    for (std::int64_t c = 0; c < columns; ++c) {
      const std::int64_t id = ids.values[at + static_cast<std::size_t>(c)];
      check<IoError>(id >= 0 && id < vocab, where, ": input_ids: row ", r, ", column ", c, " is ", id,
                     ", expected an id in [0, ", vocab, ")");
      if (labels) {
        const std::int64_t label = labels->values[at + static_cast<std::size_t>(c)];
        check<IoError>(label == kIgnoredLabel || (label >= 0 && label < vocab), where, ": labels: row ", r, ", column ",
                       c, " is ", label, ", expected -100 or an id in [0, ", vocab, ")");
      }
    }
    real.push_back(detail::real_columns(where, mask.values.subspan(at, static_cast<std::size_t>(columns)), r));
  }

  for (std::int64_t r = 0; r < rows; ++r) {
    const auto [begin, end] = real[static_cast<std::size_t>(r)];
    if (begin == end) {
      continue;
    }
    const auto first_token = static_cast<std::int32_t>(batch.tokens());
    for (std::int64_t c = begin; c < columns; ++c) {
      const auto cell = static_cast<std::size_t>(r * columns + c);
      out.logit_source[cell] = static_cast<std::int32_t>(batch.tokens());
      detail::append_token(batch, static_cast<std::int32_t>(ids.values[cell]), static_cast<std::int32_t>(c),
                           c < end ? static_cast<std::int32_t>(r) : -1, static_cast<std::int32_t>(c - begin));
    }
    batch.segments.push_back(
        {first_token, static_cast<std::int32_t>(columns - begin), static_cast<std::int32_t>(end - begin)});
  }
  std::map<std::int64_t, std::int32_t> blind;
  for (std::size_t cell = 0; cell < out.logit_source.size(); ++cell) {
    if (out.logit_source[cell] < 0) {
      const auto [token, inserted] = blind.try_emplace(ids.values[cell], 0);
      if (inserted) {
        token->second = detail::append_blind_token(batch, static_cast<std::int32_t>(token->first));
      }
      out.logit_source[cell] = token->second;
    }
  }

  if (!labels) {
    return out;
  }
  for (std::size_t cell = 0; cell + 1 < out.logit_source.size(); ++cell) {
    const bool last_column = (cell + 1) % static_cast<std::size_t>(columns) == 0;
    const std::int64_t target = labels->values[cell + 1];
    if (last_column || target == kIgnoredLabel || (mode == PadRows::ignore && mask.values[cell] == 0)) {
      continue;
    }
    detail::append_target(batch, out.logit_source[cell], static_cast<std::int32_t>(target),
                          static_cast<std::int32_t>(cell / static_cast<std::size_t>(columns)));
  }
  check<IoError>(!batch.targets.empty(), where, ": labels: no label is left after the shift by one",
                 mode == PadRows::ignore ? " (targets that padding predicts are left out)" : "",
                 "; expected at least one that is not -100 beyond column 0");
  return out;
}

}  // namespace perft::inline PERFT_ABI

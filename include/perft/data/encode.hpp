#pragma once
// Rows to token ids and labels: the cutoff, the EOS, which tokens are learned, and the counts printed before step 1.

#include <algorithm>    // std::min
#include <concepts>     // what a tokenizer must offer
#include <cstddef>      // std::size_t
#include <cstdint>      // fixed-width integers
#include <string_view>  // texts
#include <vector>       // rows

#include "perft/core/error.hpp"
#include "perft/data/batch.hpp"
#include "perft/data/prompt.hpp"
#include "perft/data/rows.hpp"

namespace perft::inline PERFT_ABI {

/// `encode(text, add_special)`: the ids of a text, with what the post-processor adds if asked.
template <class T>
concept TextEncoder = requires(const T& tokenizer, std::string_view text) {
  { tokenizer.encode(text, true).size() } -> std::convertible_to<std::size_t>;
  { *tokenizer.encode(text, true).begin() } -> std::convertible_to<std::int64_t>;
};

struct EncodeOptions {
  std::int64_t cutoff = 256;  // most tokens of a row, EOS included
  bool train_on_inputs = true;
  std::int32_t eos_id = -1;
};

/// What the rows of one data set became.
struct EncodeStats {
  std::int64_t rows = 0;
  std::int64_t tokens = 0;
  std::int64_t trained_tokens = 0;  // those that are a target: labelled, and not the first of their row
  std::int64_t truncated = 0;       // rows that, with their EOS, are longer than the cutoff
  std::int64_t without_eos = 0;     // rows that do not end in the EOS: the model does not learn to stop there
  std::int64_t without_label = 0;   // rows that teach nothing
  std::int64_t seam_differs = 0;    // rows whose prompt's tokens change when the output follows (only if masked)
  std::int64_t longest = 0;         // tokens of the longest row

  double trained_share() const {
    return tokens == 0 ? 0.0 : static_cast<double>(trained_tokens) / static_cast<double>(tokens);
  }
};

/// Tokens of a row that are a target: labelled, and not the first.
inline std::int64_t trained_tokens(const EncodedRow& row) {
  return static_cast<std::int64_t>(row.labels.size() - 1) -
         std::count(row.labels.begin() + 1, row.labels.end(), kIgnoredLabel);
}

namespace detail {

/// `encode` as 32-bit ids, whatever integers the tokenizer returns.
template <TextEncoder T>
std::vector<std::int32_t> encode_ids(const T& tokenizer, std::string_view text) {
  std::vector<std::int32_t> ids;
  for (const auto id : tokenizer.encode(text, true)) {
    ids.push_back(static_cast<std::int32_t>(id));
  }
  return ids;
}

}  // namespace detail

/// One row: its training text, cut to `cutoff` tokens, with the EOS behind it where that fits and is not already there.
/// With train_on_inputs false the labels of the first p tokens are kIgnoredLabel, p = number of tokens of the prompt
/// encoded alone; where the tokenizer joins the prompt's end and the output's start, that is not quite the prompt.
/// Throws IoError naming the row's file and place for a text without tokens.
/// Source: LLM-Adapters, finetune.py, tokenize and generate_and_tokenize_prompt.
template <TextEncoder T>
EncodedRow encode_row(const T& tokenizer, const PromptTemplate& prompt, const Row& row, const EncodeOptions& options,
                      EncodeStats& stats) {
  EncodedRow out;
  out.ids = detail::encode_ids(tokenizer, prompt.training_text(row));
  check<IoError>(!out.ids.empty(), row.where, ": the text has no tokens; remove the row");

  const auto cutoff = static_cast<std::size_t>(options.cutoff);
  const bool has_eos = out.ids.back() == options.eos_id;
  stats.truncated += out.ids.size() + (has_eos ? 0 : 1) > cutoff ? 1 : 0;
  if (out.ids.size() > cutoff) {
    out.ids.resize(cutoff);
  }
  if (out.ids.back() != options.eos_id && out.ids.size() < cutoff) {
    out.ids.push_back(options.eos_id);
  }

  out.labels = out.ids;
  if (!options.train_on_inputs) {
    const std::vector<std::int32_t> prompt_ids = detail::encode_ids(tokenizer, prompt.training_prompt(row));
    const std::size_t masked = std::min(prompt_ids.size(), out.ids.size());
    std::fill_n(out.labels.begin(), masked, kIgnoredLabel);
    stats.seam_differs +=
        std::equal(out.ids.begin(), out.ids.begin() + static_cast<std::ptrdiff_t>(masked), prompt_ids.begin()) ? 0 : 1;
  }

  const std::int64_t trained = trained_tokens(out);
  stats.rows += 1;
  stats.tokens += static_cast<std::int64_t>(out.ids.size());
  stats.trained_tokens += trained;
  stats.without_eos += out.ids.back() == options.eos_id ? 0 : 1;
  stats.without_label += trained == 0 ? 1 : 0;
  stats.longest = std::max(stats.longest, static_cast<std::int64_t>(out.ids.size()));
  return out;
}

/// All rows, and their counts. Rows that teach nothing stay (they still take part in the load-balance loss).
/// Throws ValueError if the cutoff is below 1 or no row keeps a label, IoError as encode_row does.
template <TextEncoder T>
std::vector<EncodedRow> encode_rows(const T& tokenizer, const PromptTemplate& prompt, const std::vector<Row>& rows,
                                    const EncodeOptions& options, EncodeStats& stats) {
  check<ValueError>(options.cutoff >= 1, "data: the cutoff is ", options.cutoff, ", expected at least 1 token");
  stats = {};
  std::vector<EncodedRow> out;
  out.reserve(rows.size());
  for (const Row& row : rows) {
    out.push_back(encode_row(tokenizer, prompt, row, options, stats));
  }
  check<ValueError>(stats.trained_tokens > 0, "data: none of the ", stats.rows, " rows keeps a label with a cutoff of ",
                    options.cutoff, " tokens", options.train_on_inputs ? "" : " and --train-on-inputs false",
                    "; raise --cutoff");
  return out;
}

}  // namespace perft::inline PERFT_ABI

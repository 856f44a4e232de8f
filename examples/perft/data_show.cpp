// `perft data`: rows as the tokens that finetune trains on, and the table it prints before step 1.

#include "data_show.hpp"

#include <fmt/format.h>  // lines
#include <unistd.h>      // isatty

#include <algorithm>  // std::binary_search
#include <cstdlib>    // NO_COLOR
#include <iostream>   // results
#include <numeric>    // std::iota
#include <string>     // texts
#include <vector>     // tokens

#include "digits.hpp"
#include "finetune_data.hpp"
#include "model_files.hpp"
#include "perft/data/order.hpp"
#include "perft/data/prompt.hpp"
#include "perft/text/tokenizer.hpp"
#include "perft/text/unicode.hpp"

namespace perft::cli {

namespace {

constexpr std::int64_t kRowsShown = 3;  // by default

/// A row of the data and what became of it.
struct ShownRow {
  std::int64_t number = 0;          // in all files, from 0
  const char* part = nullptr;       // of the split; nullptr if there is none
  const Row* row = nullptr;         // as read
  EncodedRow encoded;               // as trained
  EncodeStats stats;                // of this row alone
  std::size_t prompt_tokens = 0;    // of the prompt encoded alone, at most the row's own
  bool seam_differs = false;        // the prompt's tokens change when the output follows
  std::vector<std::string> tokens;  // the text that each token completes: together the row's text
};

/// Whether a character would move the cursor, colour the screen or turn the writing direction: it is shown by its
/// number.
bool is_invisible(char32_t c) {
  return c < 0x20 || (c >= 0x7f && c <= 0x9f) || c == 0xad || (c >= 0x200b && c <= 0x200f) ||
         (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) || c == 0xfeff;
}

/// `text` fit to stand between boundaries: marks and backslashes get a backslash, invisible characters are spelled.
std::string visible(const std::string& text) {
  std::string out;
  for (std::size_t at = 0; at < text.size(); at += utf8_length(text[at])) {
    const char32_t c = utf8_decode(text, at);
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (is_invisible(c)) {
      out += fmt::format("\\u{{{:x}}}", static_cast<std::uint32_t>(c));
    } else {
      if (c == '|' || c == '[' || c == ']' || c == '\\') {
        out += '\\';
      }
      out.append(text, at, utf8_length(text[at]));
    }
  }
  return out;
}

/// Whether a token is a target: labelled, and not the first of its row.
bool is_trained(const EncodedRow& row, std::size_t i) {
  return i > 0 && row.labels[i] != kIgnoredLabel;
}

ShownRow encoded(const Tokenizer& tokenizer, const PromptTemplate& prompt, const Row& row,
                 const EncodeOptions& options) {
  ShownRow shown;
  shown.row = &row;
  shown.encoded = encode_row(tokenizer, prompt, row, options, shown.stats);
  // The border of the prompt is worth seeing even if the prompt is trained, too.
  EncodeOptions masked = options;
  masked.train_on_inputs = false;
  EncodeStats seam;
  const EncodedRow outputs = encode_row(tokenizer, prompt, row, masked, seam);
  shown.seam_differs = seam.seam_differs > 0;
  shown.prompt_tokens =
      static_cast<std::size_t>(std::count(outputs.labels.begin(), outputs.labels.end(), kIgnoredLabel));
  StreamDecoder decoder(tokenizer, false);
  for (const std::int32_t id : shown.encoded.ids) {
    shown.tokens.push_back(decoder.push(id));
  }
  shown.tokens.back() += decoder.finish();
  return shown;
}

/// "row 5 (a.json: row 6, to train): 87 tokens, 12 trained; cut at 80 tokens; no EOS".
std::string heading(const ShownRow& shown, const DataOptions& options) {
  const std::string part = shown.part == nullptr                ? ""
                           : std::string(shown.part) == "train" ? ", to train"
                                                                : ", held back";
  std::string out =
      fmt::format("row {} ({}{}): {} tokens, {} trained; prompt {} tokens", shown.number, visible(shown.row->where),
                  part, shown.encoded.ids.size(), shown.stats.trained_tokens, shown.prompt_tokens);
  out += shown.stats.truncated > 0 ? fmt::format("; cut at {}", options.run.cutoff) : "";
  out += shown.stats.without_eos > 0 ? "; no EOS" : "";
  out += shown.seam_differs ? "; the prompt's last tokens change when the output follows" : "";
  return out + "\n";
}

/// The row's tokens: |trained| and [masked], and where the terminal has colours, green and dim.
std::string drawn(const ShownRow& shown, const Tokenizer& tokenizer, bool colours) {
  const char* dim = colours ? "\x1b[2m" : "";
  const char* green = colours ? "\x1b[32m" : "";
  const char* plain = colours ? "\x1b[0m" : "";
  std::string out;
  bool bar = false;  // the last character is the boundary of a trained token
  for (std::size_t i = 0; i < shown.tokens.size(); ++i) {
    const std::string& text = shown.tokens[i];
    const bool trained = is_trained(shown.encoded, i);
    // A token of some bytes of a character completes nothing: it is shown as tokenizer.json spells it.
    const std::string piece = text.empty() ? "‹" + visible(tokenizer.token(shown.encoded.ids[i])) + "›" : visible(text);
    out += trained ? fmt::format("{}{}{}{}|", bar ? "" : "|", green, piece, plain)
                   : fmt::format("{}[{}]{}", dim, piece, plain);
    bar = trained;
    if (text.ends_with('\n')) {
      out += '\n';
      bar = false;
    }
  }
  return out + (out.ends_with('\n') ? "" : "\n");
}

OrderedJson as_json(const ShownRow& shown) {
  return {{"row", shown.number},
          {"where", shown.row->where},
          {"part", shown.part == nullptr ? OrderedJson() : OrderedJson(shown.part)},
          {"ids", shown.encoded.ids},
          {"tokens", shown.tokens},
          {"labels", shown.encoded.labels},
          {"trained_tokens", shown.stats.trained_tokens},
          {"prompt_tokens", shown.prompt_tokens},
          {"truncated", shown.stats.truncated > 0},
          {"eos", shown.stats.without_eos == 0},
          {"seam_differs", shown.seam_differs}};
}

/// The numbers of the rows to show, in the order asked for.
std::vector<std::int64_t> chosen(const DataOptions& options, const std::vector<std::int64_t>& of) {
  const auto count = static_cast<std::int64_t>(of.size());
  std::vector<RowRange> ranges = options.rows;
  if (ranges.empty() && count > 0) {
    ranges.push_back({0, std::min(kRowsShown, count) - 1});
  }
  std::vector<std::int64_t> numbers;
  for (const RowRange& range : ranges) {
    check<IoError>(range.last < count, options.run.data.front(), ": --rows ", range.last, ": there are ", count,
                   " rows", options.part ? " in this part of the split" : "",
                   ", numbered from 0; give a smaller number");
    for (std::int64_t i = range.first; i <= range.last; ++i) {
      numbers.push_back(of[static_cast<std::size_t>(i)]);
    }
  }
  return numbers;
}

int show(const DataOptions& options, const ModelConfig& config) {
  const EncodeOptions encode = encode_options(options.run, config);
  const PromptTemplate prompt = load_prompt_template(options.run.prompt);
  const std::vector<Row> rows = read_rows(options.run.data);
  const Tokenizer tokenizer = Tokenizer::load(options.run.model + "/tokenizer.json");
  const auto count = static_cast<std::int64_t>(rows.size());
  // Too few rows for a split are worth looking at, too.
  const bool split_exists = options.part || options.run.val_size < count;
  RowSplit split;
  if (split_exists) {
    split = split_for(options.run, count);
  }
  std::vector<std::int64_t> all(static_cast<std::size_t>(count));
  std::iota(all.begin(), all.end(), 0);
  const std::vector<std::int64_t>& numbered = !options.part                      ? all
                                              : *options.part == DataPart::train ? split.train
                                                                                 : split.validation;
  const bool colours = isatty(STDOUT_FILENO) == 1 && std::getenv("NO_COLOR") == nullptr;
  OrderedJson list = OrderedJson::array();
  for (const std::int64_t number : chosen(options, numbered)) {
    ShownRow shown = encoded(tokenizer, prompt, rows[static_cast<std::size_t>(number)], encode);
    shown.number = number;
    if (split_exists) {
      shown.part =
          std::binary_search(split.validation.begin(), split.validation.end(), number) ? "validation" : "train";
    }
    if (options.json) {
      list.push_back(as_json(shown));
    } else {
      std::cout << (list.empty() ? "" : "\n") << heading(shown, options) << drawn(shown, tokenizer, colours);
      list.push_back(number);
    }
  }
  if (options.json) {
    std::cout << OrderedJson{{"count", count}, {"rows", list}}.dump() << "\n";
  }
  return 0;
}

int report(const DataOptions& options, const ModelConfig& config) {
  const FinetuneData data = load_data(options.run, config);
  std::cout << (options.json ? rows_json(data).dump() + "\n" : rows_table(data, options.run));
  return 0;
}

}  // namespace

int run_data(const DataOptions& options) {
  const ModelConfig config = read_model_config(options.run.model);
  return options.action == DataAction::show ? show(options, config) : report(options, config);
}

}  // namespace perft::cli

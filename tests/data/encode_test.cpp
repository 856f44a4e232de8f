// Rows to ids and labels with a toy tokenizer: one id per byte, BOS 1 in front, EOS 2.

#include "perft/data/encode.hpp"

#include <catch2/catch.hpp>
#include <cstdint>
#include <string_view>
#include <vector>

using perft::EncodedRow;
using perft::EncodeOptions;
using perft::EncodeStats;
using perft::Row;
using Ints = std::vector<std::int32_t>;

namespace {

/// 'a' is 10, 'b' 11, ...; '$' is the EOS; the pair ">>" is one token (5), so that a prompt's end can join its output.
struct ToyTokenizer {
  bool bos = true;

  std::vector<std::int64_t> encode(std::string_view text, bool add_special) const {
    std::vector<std::int64_t> ids;
    if (add_special && bos) {
      ids.push_back(1);
    }
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (text.substr(i, 2) == ">>") {
        ids.push_back(5);
        ++i;
      } else {
        ids.push_back(text[i] == '$' ? 2 : text[i] == '>' ? 6 : text[i] - 'a' + 10);
      }
    }
    return ids;
  }
};

const perft::PromptTemplate& prompt() {
  static const perft::PromptTemplate p = perft::parse_prompt_template(
      R"({"train": {"with_input": "{instruction}{input}>{output}", "without_input": "{instruction}>{output}"}})", "p");
  return p;
}

EncodedRow encode(const Row& row, std::int64_t cutoff, bool train_on_inputs, EncodeStats& stats) {
  return perft::encode_row(ToyTokenizer{}, prompt(), row, {cutoff, train_on_inputs, 2}, stats);
}

const Row kRow{"ab", "", "cd", {}};  // 1 10 11 6 12 13, EOS 2

}  // namespace

TEST_CASE("encode_row appends the EOS and learns every token", "[data][encode]") {
  EncodeStats stats;
  const EncodedRow row = encode(kRow, 256, true, stats);
  CHECK(row.ids == Ints{1, 10, 11, 6, 12, 13, 2});
  CHECK(row.labels == row.ids);
  CHECK(stats.rows == 1);
  CHECK(stats.tokens == 7);
  CHECK(stats.trained_tokens == 6);
  CHECK(stats.truncated == 0);
  CHECK(stats.without_eos == 0);
  CHECK(stats.longest == 7);
  CHECK(stats.trained_share() == Approx(6.0 / 7));
}

TEST_CASE("encode_row: the cutoff counts the EOS", "[data][encode]") {
  EncodeStats stats;
  CHECK(encode(kRow, 7, true, stats).ids == Ints{1, 10, 11, 6, 12, 13, 2});
  CHECK(stats.truncated == 0);
  CHECK(encode(kRow, 6, true, stats).ids == Ints{1, 10, 11, 6, 12, 13});  // the EOS does not fit
  CHECK(stats.truncated == 1);
  CHECK(stats.without_eos == 1);
  CHECK(encode(kRow, 3, true, stats).ids == Ints{1, 10, 11});
  CHECK(stats.truncated == 2);
  CHECK(stats.without_eos == 2);
  CHECK(stats.longest == 7);
}

TEST_CASE("encode_row does not add a second EOS", "[data][encode]") {
  EncodeStats stats;
  CHECK(encode({"a", "", "b$", {}}, 256, true, stats).ids == Ints{1, 10, 6, 11, 2});
  CHECK(encode({"a", "", "b$", {}}, 5, true, stats).ids == Ints{1, 10, 6, 11, 2});
  CHECK(stats.truncated == 0);
  CHECK(stats.without_eos == 0);
}

TEST_CASE("encode_row masks as many tokens as the prompt alone has", "[data][encode]") {
  EncodeStats stats;
  CHECK(encode(kRow, 256, false, stats).labels == Ints{-100, -100, -100, -100, 12, 13, 2});
  CHECK(stats.trained_tokens == 3);
  CHECK(stats.seam_differs == 0);
  // The output starts with '>': the prompt's last token and the output's first become one.
  const EncodedRow joined = encode({"ab", "", ">c", {}}, 256, false, stats);
  CHECK(joined.ids == Ints{1, 10, 11, 5, 12, 2});
  CHECK(joined.labels == Ints{-100, -100, -100, -100, 12, 2});
  CHECK(stats.seam_differs == 1);
  CHECK(encode({"ab", "e", "c", {}}, 256, false, stats).labels == Ints{-100, -100, -100, -100, -100, 12, 2});
}

TEST_CASE("encode_rows keeps rows that teach nothing and refuses a data set of nothing else", "[data][encode]") {
  EncodeStats stats;
  const Row lengthy{"abcdefgh", "", "i", {}};
  const auto rows = perft::encode_rows(ToyTokenizer{}, prompt(), {lengthy, kRow}, EncodeOptions{6, false, 2}, stats);
  CHECK(rows.size() == 2);
  CHECK(stats.without_label == 1);
  CHECK(stats.trained_tokens == 2);
  CHECK_THROWS_WITH(perft::encode_rows(ToyTokenizer{}, prompt(), {lengthy, lengthy}, EncodeOptions{6, false, 2}, stats),
                    "data: none of the 2 rows keeps a label with a cutoff of 6 tokens and --train-on-inputs false; "
                    "raise --cutoff");
  CHECK_THROWS_WITH(perft::encode_rows(ToyTokenizer{}, prompt(), {kRow}, EncodeOptions{1, true, 2}, stats),
                    "data: none of the 1 rows keeps a label with a cutoff of 1 tokens; raise --cutoff");
  CHECK_THROWS_WITH(perft::encode_rows(ToyTokenizer{}, prompt(), {kRow}, EncodeOptions{0, true, 2}, stats),
                    "data: the cutoff is 0, expected at least 1 token");
}

TEST_CASE("encode_row refuses a text without tokens", "[data][encode]") {
  struct Silent {
    std::vector<std::int32_t> encode(std::string_view, bool) const { return {}; }
  };

  EncodeStats stats;
  Row row = kRow;
  row.where = "b.json: row 2";
  CHECK_THROWS_WITH(perft::encode_row(Silent{}, prompt(), row, {8, true, 2}, stats),
                    "b.json: row 2: the text has no tokens; remove the row");
}

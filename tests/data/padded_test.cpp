// Padded batches in ragged form: left, right and both-sided padding, and what counts as a target in either mode.

#include "perft/data/padded.hpp"

#include <catch2/catch.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

using perft::IntegerTensor;
using perft::PaddedBatch;
using perft::PadRows;
using Ints = std::vector<std::int32_t>;
using Longs = std::vector<std::int64_t>;

namespace {

constexpr std::int64_t kVocab = 50;

struct Padded {
  Longs shape;
  Longs ids;
  Longs mask;
  Longs labels;

  PaddedBatch ragged(PadRows mode, bool with_labels = true) const {
    const std::optional<IntegerTensor> given =
        with_labels ? std::optional<IntegerTensor>(IntegerTensor{labels, shape}) : std::nullopt;
    return perft::from_padded("b.safetensors", {ids, shape}, {mask, shape}, given, kVocab, mode);
  }
};

/// Three rows of five columns: padded left, right and on both sides. Pad id 1, but the left row also pads with 2.
Padded all_paddings() {
  return {{3, 5},
          {1, 2, 10, 11, 12, /**/ 20, 21, 22, 1, 1, /**/ 1, 30, 31, 1, 1},
          {0, 0, 1, 1, 1, /**/ 1, 1, 1, 0, 0, /**/ 0, 1, 1, 0, 0},
          {-100, -100, 10, 11, 12, /**/ 20, 21, 22, -100, -100, /**/ -100, 30, 31, -100, -100}};
}

/// Keys that query `i` of a segment sees without a window.
std::int32_t keys_seen(const perft::Segment& segment, std::int32_t i) {
  return std::min(i + 1, segment.keys);
}

}  // namespace

TEST_CASE("from_padded: tokens, segments and the source of every position's logits", "[data][padded]") {
  const PaddedBatch padded = all_paddings().ragged(PadRows::hf);
  const perft::Batch& batch = padded.batch;
  // Rows without their left padding, then one token per distinct id of the left padding (1, 2).
  CHECK(batch.ids == Ints{10, 11, 12, 20, 21, 22, 1, 1, 30, 31, 1, 1, 1, 2});
  CHECK(batch.positions == Ints{2, 3, 4, 0, 1, 2, 3, 4, 1, 2, 3, 4, 0, 0});
  CHECK(batch.row == Ints{0, 0, 0, 1, 1, 1, -1, -1, 2, 2, -1, -1, -1, -1});
  CHECK(perft::real_tokens(batch) == 8);
  CHECK(padded.logit_source == Ints{12, 13, 0, 1, 2, 3, 4, 5, 6, 7, 12, 8, 9, 10, 11});
  CHECK(padded.columns == 5);
  CHECK(batch.padded_length == 5);
  CHECK(batch.rows == 3);
  REQUIRE(batch.segments.size() == 5);
  const Longs expected[] = {{0, 3, 3}, {3, 5, 3}, {8, 4, 2}, {12, 1, 0}, {13, 1, 0}};
  std::int32_t covered = 0;
  for (std::size_t s = 0; s < 5; ++s) {
    CHECK(Longs{batch.segments[s].begin, batch.segments[s].queries, batch.segments[s].keys} == expected[s]);
    CHECK(batch.segments[s].begin == covered);
    covered += batch.segments[s].queries;
  }
  CHECK(covered == batch.tokens());
  CHECK(keys_seen(batch.segments[1], 4) == 3);  // the last right-padding query sees all real keys of its row
}

TEST_CASE("from_padded: hf scores every shifted label, ignore only those a real token predicts", "[data][padded]") {
  const PaddedBatch hf = all_paddings().ragged(PadRows::hf);
  // Row 0: padding (id 2) -> 10; row 2: padding (id 1) -> 30.
  CHECK(hf.batch.loss_rows == Ints{13, 0, 1, 3, 4, 12, 8});
  CHECK(hf.batch.targets == Ints{10, 11, 12, 21, 22, 30, 31});
  CHECK(hf.batch.target_row == Ints{0, 0, 0, 1, 1, 2, 2});
  const PaddedBatch ignore = all_paddings().ragged(PadRows::ignore);
  CHECK(ignore.batch.loss_rows == Ints{0, 1, 3, 4, 8});
  CHECK(ignore.batch.targets == Ints{11, 12, 21, 22, 31});
  CHECK(ignore.logit_source == hf.logit_source);
}

TEST_CASE("from_padded: a label on right padding counts where transformers counts it", "[data][padded]") {
  Padded padded = all_paddings();
  padded.labels[8] = 7;  // row 1, column 3: predicted by its last real token
  padded.labels[9] = 8;  // row 1, column 4: predicted by a padding query
  const PaddedBatch hf = padded.ragged(PadRows::hf);
  CHECK(hf.batch.loss_rows == Ints{13, 0, 1, 3, 4, 5, 6, 12, 8});
  CHECK(hf.batch.targets == Ints{10, 11, 12, 21, 22, 7, 8, 30, 31});
  const PaddedBatch ignore = padded.ragged(PadRows::ignore);
  CHECK(ignore.batch.targets == Ints{11, 12, 21, 22, 7, 31});
}

TEST_CASE("from_padded: rows share the blind token of an id, and a row may be padding throughout", "[data][padded]") {
  const Padded padded = {{2, 3}, {1, 1, 5, 1, 4, 1}, {0, 0, 1, 0, 0, 0}, {-100, -100, 5, -100, -100, -100}};
  const PaddedBatch ragged = padded.ragged(PadRows::hf);
  CHECK(ragged.batch.ids == Ints{5, 1, 4});
  CHECK(ragged.logit_source == Ints{1, 1, 0, 1, 2, 1});
  CHECK(ragged.batch.loss_rows == Ints{1});
  CHECK(ragged.batch.segments.size() == 3);
}

TEST_CASE("from_padded: without labels there are logits and no targets", "[data][padded]") {
  const PaddedBatch padded = all_paddings().ragged(PadRows::hf, false);
  CHECK_FALSE(padded.has_labels);
  CHECK(padded.batch.targets.empty());
  CHECK(padded.logit_source == all_paddings().ragged(PadRows::hf).logit_source);
}

TEST_CASE("from_padded: column 0 is never a target, not even of the row before", "[data][padded]") {
  const Padded padded = {{2, 2}, {3, 4, 5, 6}, {1, 1, 1, 1}, {3, 4, 5, 6}};
  CHECK(padded.ragged(PadRows::hf).batch.targets == Ints{4, 6});
}

TEST_CASE("from_padded: errors name the file, the tensor and the place", "[data][padded]") {
  const auto message = [](const Padded& padded, PadRows mode = PadRows::hf) -> std::string {
    try {
      padded.ragged(mode);
    } catch (const perft::IoError& error) {
      return error.what();
    }
    return "no error";
  };
  Padded bad = all_paddings();
  bad.mask[1] = 1;
  bad.mask[2] = 0;
  CHECK(message(bad) ==
        "b.safetensors: attention_mask: row 0 has a hole before column 3; the real tokens of a row must be contiguous");
  bad = all_paddings();
  bad.mask[14] = 2;
  CHECK(message(bad) == "b.safetensors: attention_mask: row 2, column 4 is 2, expected 0 or 1");
  bad = all_paddings();
  bad.ids[5] = 50;
  CHECK(message(bad) == "b.safetensors: input_ids: row 1, column 0 is 50, expected an id in [0, 50)");
  bad = all_paddings();
  bad.ids[0] = -1;  // padding is looked up like any other id
  CHECK(message(bad) == "b.safetensors: input_ids: row 0, column 0 is -1, expected an id in [0, 50)");
  bad = all_paddings();
  bad.labels[6] = -1;
  CHECK(message(bad) == "b.safetensors: labels: row 1, column 1 is -1, expected -100 or an id in [0, 50)");
  bad = all_paddings();
  bad.labels.assign(15, -100);
  bad.labels[0] = bad.labels[5] = 3;
  CHECK(message(bad) ==
        "b.safetensors: labels: no label is left after the shift by one; expected at least one that is not -100 beyond "
        "column 0");
  bad.labels[11] = 30;
  CHECK(message(bad) == "no error");
  CHECK(message(bad, PadRows::ignore) ==
        "b.safetensors: labels: no label is left after the shift by one (targets that padding predicts are left out); "
        "expected at least one that is not -100 beyond column 0");
}

TEST_CASE("from_padded: shapes must be equal, two-dimensional and not empty", "[data][padded]") {
  const Longs four = {1, 2, 3, 4};
  const Longs ones = {1, 1, 1, 1};
  const Longs square = {2, 2};
  const Longs wide = {1, 4};
  const Longs flat = {4};
  const Longs none = {0, 2};
  const auto message = [](const IntegerTensor& ids, const IntegerTensor& mask,
                          const std::optional<IntegerTensor>& labels) -> std::string {
    try {
      perft::from_padded("b.safetensors", ids, mask, labels, kVocab, PadRows::hf);
    } catch (const perft::IoError& error) {
      return error.what();
    }
    return "no error";
  };
  CHECK(message({four, square}, {ones, wide}, std::nullopt) ==
        "b.safetensors: attention_mask has shape [1, 4], expected [2, 2] like input_ids");
  CHECK(message({four, square}, {ones, square}, IntegerTensor{four, flat}) ==
        "b.safetensors: labels has shape [4], expected [2, 2] like input_ids");
  CHECK(message({four, flat}, {ones, flat}, std::nullopt) ==
        "b.safetensors: input_ids has shape [4], expected [rows, columns], both at least 1");
  CHECK(message({{}, none}, {{}, none}, std::nullopt) ==
        "b.safetensors: input_ids has shape [0, 2], expected [rows, columns], both at least 1");
}

#pragma once
// What pretrain trains on: the rows of the train files that are evaluated nowhere, and a list that proves it.

#include <algorithm>      // std::sort
#include <cstdint>        // counts
#include <string>         // paths
#include <string_view>    // instructions
#include <unordered_set>  // rows seen
#include <vector>         // rows

#include "perft/data/order.hpp"
#include "perft/data/rows.hpp"
#include "perft/io/mapped_file.hpp"
#include "perft/io/sha256.hpp"

namespace perft::examples {

/// The train files, in the order they are read, and the files of rows that are evaluated: none of theirs is trained on.
inline constexpr const char* kTrainFiles[] = {"commonsense/boolq/train.json", "commonsense/openbookqa/train.json",
                                              "commonsense/ARC-Easy/train.json", "commonsense/ARC-Challenge/train.json",
                                              "math/train.json"};
inline constexpr const char* kEvaluatedFiles[] = {
    "commonsense/boolq/test.json",    "commonsense/openbookqa/test.json",
    "commonsense/ARC-Easy/test.json", "commonsense/ARC-Challenge/test.json",
    "math/AddSub/unseen.json",        "math/MultiArith/unseen.json",
    "math/SingleEq/unseen.json",      "math/gsm8k/unseen.json"};

/// An instruction as rows are compared: its ASCII letters and digits alone, letters lower-cased, so that spacing and
/// punctuation make no difference. tools/check_contamination.py does the same.
inline std::string row_key(std::string_view instruction) {
  std::string key;
  for (const char c : instruction) {
    if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) {
      key += c;
    } else if (c >= 'A' && c <= 'Z') {
      key += static_cast<char>(c - 'A' + 'a');
    }
  }
  return key;
}

/// The first 64 bits of SHA-256 of the row's key, as 16 hexadecimal digits.
inline std::string row_hash(const Row& row) {
  return sha256_hex(row_key(row.instruction)).substr(0, 16);
}

struct CorpusFile {
  std::string path;
  std::string sha256;
  std::int64_t rows = 0;
  std::int64_t used = 0;  // of a train file: rows that are in the corpus
};

struct Corpus {
  std::vector<Row> rows;
  std::vector<CorpusFile> train, held_out;
  std::int64_t evaluated = 0;   // rows left out because they are evaluated
  std::int64_t duplicates = 0;  // rows left out because an earlier one is the same
  std::string hashes;           // row_hash of every row, sorted, one a line
};

/// The corpus of the data folder `data`, less the rows of `held_out`, more files of rows, separated by commas. Throws
/// IoError for a file that is missing or no file of rows, and if nothing is left.
inline Corpus read_corpus(const std::string& data, std::string_view held_out) {
  Corpus corpus;
  std::unordered_set<std::string> evaluated;
  const auto read = [](const std::string& path, std::vector<CorpusFile>& files) {
    const std::string text = read_text_file(path);
    std::vector<Row> rows = parse_rows(text, path);
    files.push_back({path, sha256_hex(text), static_cast<std::int64_t>(rows.size()), 0});
    return rows;
  };
  std::vector<std::string> paths;
  for (const char* file : kEvaluatedFiles) {
    paths.push_back(data + "/" + file);
  }
  while (!held_out.empty()) {
    const std::size_t comma = held_out.find(',');
    paths.emplace_back(held_out.substr(0, comma));
    held_out.remove_prefix(comma == std::string_view::npos ? held_out.size() : comma + 1);
  }
  for (const std::string& path : paths) {
    for (const Row& row : read(path, corpus.held_out)) {
      evaluated.insert(row_hash(row));
    }
  }
  std::vector<std::string> hashes;
  std::unordered_set<std::string> taken;
  for (const char* file : kTrainFiles) {
    for (Row& row : read(data + "/" + file, corpus.train)) {
      const std::string hash = row_hash(row);
      if (evaluated.contains(hash)) {
        ++corpus.evaluated;
      } else if (!taken.insert(hash).second) {
        ++corpus.duplicates;
      } else {
        hashes.push_back(hash);
        corpus.rows.push_back(std::move(row));
        ++corpus.train.back().used;
      }
    }
  }
  check<IoError>(!corpus.rows.empty(), data, ": every row of its train files is held out; nothing is left to train on");
  std::sort(hashes.begin(), hashes.end());
  for (const std::string& hash : hashes) {
    corpus.hashes += hash + "\n";
  }
  return corpus;
}

/// The corpus as training.json describes it.
inline OrderedJson corpus_json(const Corpus& corpus, const RowSplit& split) {
  const auto files = [](const std::vector<CorpusFile>& list, bool used) {
    OrderedJson array = OrderedJson::array();
    for (const CorpusFile& file : list) {
      OrderedJson entry = {{"path", file.path}, {"sha256", file.sha256}, {"rows", file.rows}};
      if (used) {
        entry["used"] = file.used;
      }
      array.push_back(std::move(entry));
    }
    return array;
  };
  return {{"rows", corpus.rows.size()},
          {"train_rows", split.train.size()},
          {"validation_rows", split.validation.size()},
          {"left_out_as_evaluated", corpus.evaluated},
          {"left_out_as_duplicate", corpus.duplicates},
          {"rows_txt_sha256", sha256_hex(corpus.hashes)},
          {"train_files", files(corpus.train, true)},
          {"held_out_files", files(corpus.held_out, false)}};
}

}  // namespace perft::examples

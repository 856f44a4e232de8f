#pragma once
// What fine-tuning needs before a model is loaded: encoded rows, their split, and what is said about them.

#include <cstdint>  // ids
#include <string>   // tables
#include <vector>   // rows

#include "options.hpp"
#include "perft/data/encode.hpp"

namespace perft::cli {

struct FinetuneData {
  std::vector<EncodedRow> train;
  std::vector<EncodedRow> validation;
  EncodeStats stats;  // of all rows
};

/// Reads, encodes and splits the rows of options.data with the model folder's tokenizer. Throws Error naming file and
/// row.
FinetuneData load_data(const FinetuneOptions& options);

/// One line per fact: rows, tokens, truncated, share of trained tokens, rows without EOS, …
std::string data_table(const FinetuneData& data, const FinetuneOptions& options);

/// A named group of trained tensors, for the table printed before step 1.
struct TrainedTensor {
  std::string name;
  std::int64_t parameters = 0;
};

/// Role, layers, tensors, parameters and their share of the base's. Throws ValueError if nothing is trained.
std::string trained_table(const std::vector<TrainedTensor>& tensors, std::int64_t base_parameters);

/// Set by SIGINT and SIGTERM to the signal's number; 0 otherwise.
int interrupted();
void watch_signals();

/// From /proc/self/status, in bytes; 0 where it is not there.
struct ProcessMemory {
  std::int64_t peak_rss = 0;
  std::int64_t anonymous = 0;
};

ProcessMemory process_memory();
/// MemAvailable of the machine in bytes.
std::int64_t available_memory();

}  // namespace perft::cli

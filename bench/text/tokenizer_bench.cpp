// Tokenizer throughput on one thread: the golden rows' texts (tests/fixtures), repeated, so that the word cache is as
// warm as in training. Files named in PERFT_BENCH_TEXT (separated by ':') replace them: plain text, encoded line by
// line. Compare with tokenizers.Tokenizer.encode_batch of the PyPI package tokenizers, RAYON_NUM_THREADS=1.

#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "perft/io/json.hpp"
#include "perft/io/mapped_file.hpp"
#include "perft/text/tokenizer.hpp"

namespace {

using namespace perft;

#ifdef PERFT_FIXTURES
const std::string kTokenizers = std::string(PERFT_FIXTURES) + "/tokenizers/";
#else
const std::string kTokenizers = "tests/fixtures/tokenizers/";  // run from the top of the tree
#endif

std::vector<std::string> texts() {
  std::vector<std::string> result;
  if (const char* files = std::getenv("PERFT_BENCH_TEXT")) {
    std::istringstream names(files);
    for (std::string name; std::getline(names, name, ':');) {
      std::istringstream lines(read_text_file(name));
      for (std::string line; std::getline(lines, line);) {
        result.push_back(line);
      }
    }
    return result;
  }
  const std::string golden = kTokenizers + "olmoe/golden.json";
  for (const Json& row : parse_json(read_text_file(golden), golden)) {
    result.push_back(row.at("text").get<std::string>());
  }
  return result;
}

std::size_t total_bytes(const std::vector<std::string>& rows) {
  std::size_t bytes = 0;
  for (const std::string& row : rows) {
    bytes += row.size();
  }
  return bytes;
}

void encode(benchmark::State& state, const std::string& model) {
  const Tokenizer tokenizer = Tokenizer::load(kTokenizers + model + "/tokenizer.json");
  const std::vector<std::string> rows = texts();
  std::size_t tokens = 0;
  for (auto _ : state) {
    for (const std::string& row : rows) {
      tokens += tokenizer.encode(row).size();
    }
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(total_bytes(rows)) * static_cast<std::int64_t>(state.iterations()));
  state.counters["tokens/s"] = benchmark::Counter(static_cast<double>(tokens), benchmark::Counter::kIsRate);
}

void decode(benchmark::State& state, const std::string& model) {
  const Tokenizer tokenizer = Tokenizer::load(kTokenizers + model + "/tokenizer.json");
  std::vector<std::vector<std::int32_t>> rows;
  for (const std::string& row : texts()) {
    rows.push_back(tokenizer.encode(row));
  }
  std::size_t bytes = 0;
  for (auto _ : state) {
    for (const std::vector<std::int32_t>& row : rows) {
      bytes += tokenizer.decode(row).size();
    }
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes));
}

/// One word of range(0) bytes: the time for each byte grows with its logarithm.
void encode_word(benchmark::State& state, const std::string& model) {
  const Tokenizer tokenizer = Tokenizer::load(kTokenizers + model + "/tokenizer.json");
  std::string word;
  const std::vector<std::string> syllables = {"in", "for", "ma", "tion", "er", "est", "al", "ing", "re", "con"};
  for (std::size_t i = 0; word.size() < static_cast<std::size_t>(state.range(0)); ++i) {
    word += syllables[(i * i + i / 7) % syllables.size()];
  }
  for (auto _ : state) {
    benchmark::DoNotOptimize(tokenizer.encode(word));
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(word.size()) * static_cast<std::int64_t>(state.iterations()));
}

void load(benchmark::State& state, const std::string& model) {
  for (auto _ : state) {
    benchmark::DoNotOptimize(Tokenizer::load(kTokenizers + model + "/tokenizer.json").vocab_size());
  }
}

BENCHMARK_CAPTURE(encode, olmoe, "olmoe")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode, mixtral, "mixtral")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(decode, olmoe, "olmoe")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(decode, mixtral, "mixtral")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode_word, olmoe, "olmoe")->Range(1 << 10, 1 << 20)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode_word, mixtral, "mixtral")->Range(1 << 10, 1 << 20)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(load, olmoe, "olmoe")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(load, mixtral, "mixtral")->Unit(benchmark::kMillisecond);

}  // namespace

#pragma once
// `perft score`: see docs/cli.md.

#include <cstddef>   // sizes
#include <cstdint>   // shapes
#include <optional>  // adapters
#include <string>    // names
#include <vector>    // headers

#include "model_files.hpp"
#include "options.hpp"
#include "perft/data/padded.hpp"
#include "perft/io/safetensors_writer.hpp"

namespace perft::cli {

/// Logits, losses and, if asked, gradients and AdamW steps of one padded batch, written to `options.output`. Returns
/// the exit code. Throws Error; the caller prints it and exits with 1.
int run_score(const ScoreOptions& options);

/// What is scored, read and checked.
struct ScoreInput {
  ModelFiles model;
  PaddedBatch padded;
  std::int64_t rows = 0;
  std::optional<AdapterConfig> adapter;
};

/// The results' file: F32 tensors, announced first and then streamed in that order, so that none needs to be held in
/// F32 as a whole.
class ScoreOutput {
 public:
  ScoreOutput(const std::string& path, std::vector<TensorHeader> tensors);

  /// The name of the tensor that the next values belong to.
  const std::string& name() const { return tensors_[at_].name; }

  /// The next `n` values, in row-major order, of the tensor name(). Returns false, with nothing written, if one of them
  /// is not finite.
  bool write(const float* values, std::size_t n);

  /// Throws as SafetensorsWriter::commit does.
  void commit() { writer_.commit(); }

 private:
  std::vector<TensorHeader> tensors_;
  SafetensorsWriter writer_;
  std::size_t at_ = 0;
  std::int64_t left_ = 0;  // values of tensors_[at_] still to come
};

}  // namespace perft::cli

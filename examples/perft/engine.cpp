// What the commands that run a model share and what does not depend on the compute type.

#include "engine.hpp"

#include <unistd.h>  // isatty

#include <cstdio>  // notes

#include "perft/core/cpu_features.hpp"
#include "perft/core/parallel.hpp"
#include "score.hpp"
#include "score_impl.hpp"

namespace perft::cli {

Compute resolve_compute(const CommonOptions& options) {
  if (options.dtype) {
    return *options.dtype;
  }
  return active_isa() >= Isa::avx512_bf16 ? Compute::bf16 : Compute::f32;
}

void apply_threads(const CommonOptions& options) {
  if (options.threads) {
    ThreadPool::global().set_threads(*options.threads);
  }
}

void note(const std::string& text) {
  if (isatty(STDERR_FILENO) != 0) {
    std::fprintf(stderr, "perft: note: %s\n", text.c_str());
  }
}

BatchFile read_batch_file(const std::string& path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  BatchFile batch;
  const auto read = [&](const char* name, bool required, std::vector<std::int64_t>& values,
                        std::vector<std::int64_t>& shape) {
    const TensorEntry* entry = file.find(name);
    check<IoError>(entry != nullptr || !required, path, ": tensor '", name,
                   "' is missing, expected I64 [rows, columns]");
    if (entry != nullptr) {
      check<IoError>(entry->dtype == DType::i64, path, ": tensor '", name, "' is ", dtype_name(entry->dtype),
                     ", expected I64");
      values = read_as<std::int64_t>(*entry);
      shape = entry->shape;
    }
    return entry != nullptr;
  };
  read("input_ids", true, batch.ids, batch.ids_shape);
  read("attention_mask", true, batch.mask, batch.mask_shape);
  batch.has_labels = read("labels", false, batch.labels, batch.labels_shape);
  return batch;
}

int run_score(const ScoreOptions& options) {
  apply_threads(options);
  switch (resolve_compute(options)) {
    case Compute::bf16:
      return score_with<bf16>(options);
    case Compute::f32:
      return score_with<float>(options);
    case Compute::f64:
      return score_with<double>(options);
  }
  return 2;
}

}  // namespace perft::cli

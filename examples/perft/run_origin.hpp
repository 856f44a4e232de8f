#pragma once
// The numbers of RunOrigin: made, and compared when a run is resumed.

#include <cstdint>  // prints
#include <string>   // paths

#include "finetune_data.hpp"
#include "finetune_session.hpp"
#include "model_files.hpp"

namespace perft::cli {

/// All but weights_print. Throws IoError if config.json cannot be read.
RunOrigin run_origin(const FinetuneData& data, const ModelFiles& model);

/// weights_print: reads 8 KiB of every tensor of the base, and weights that were trained further differ everywhere. On
/// a cold file that takes seconds; after a step the pages are there.
std::int64_t print_of_weights(const ModelFiles& model);

/// Throws IoError that says what is not as it was when `checkpoint` was written: `now` is of the rows of `data` and the
/// base folder `model`.
void check_same_origin(const RunOrigin& saved, const RunOrigin& now, const std::string& data, const std::string& model,
                       const std::string& checkpoint);

}  // namespace perft::cli

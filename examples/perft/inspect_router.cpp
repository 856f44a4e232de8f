// Encodes the rows of `perft inspect --router` and runs the model in the compute type asked for.

#include "inspect_router.hpp"

#include "engine.hpp"
#include "engine_commands.hpp"
#include "model_files.hpp"

namespace perft::cli {

RouterLoad run_router(const InspectOptions& options) {
  apply_threads(options);
  const ModelFiles files = ModelFiles::open(options.dir);
  EncodeOptions encode;
  encode.cutoff = files.config.max_position_embeddings;
  encode.eos_id = end_of_row(options.dir, files.config);
  RouterLoad load;
  const std::vector<EncodedRow> rows =
      encode_for(options.dir, files.config, read_rows(options.data), options.data.front(), "alpaca", encode, load.text);
  with_compute_type(options, [&]<ComputeType C>() { router_load<C>(files, rows, load); });
  return load;
}

}  // namespace perft::cli

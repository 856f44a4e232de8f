#pragma once
// The options of every command as plain structs. A std::optional is a default that depends on the model (or on another
// option) and was not given; everything else already holds its default.

#include <cstdint>   // fixed-width integers
#include <optional>  // defaults that depend on the model
#include <string>    // paths and names
#include <vector>    // lists

#include "perft/data/batch.hpp"        // PadRows
#include "perft/train/run_config.hpp"  // what is saved with a run

namespace perft::cli {

enum class Compute { bf16, f32, f64 };

enum class DeviceName { cpu, cuda };

enum class Method { perft_s, perft_d, perft_r, perft_e, lora, full };

enum class Delta { lora, parallel };

enum class RouterWeights { own, authors_olmoe };

enum class RouterDtype { f32, bf16 };

/// Options that every command has.
struct CommonOptions {
  std::optional<Compute> dtype;         // default: bf16 where the machine computes in it, else f32
  DeviceName device = DeviceName::cpu;  // a build without CUDA refuses cuda before a handler runs
  std::optional<int> threads;           // default: the machine's
  std::string config;                   // --config FILE as given, empty if none; its options are already merged in
  bool json = false;                    // the last stdout line is one JSON object
};

/// As published.
inline constexpr std::int64_t kDefaultEpochs = 3;

struct FinetuneOptions : CommonOptions {
  std::string model;              // --model DIR
  std::vector<std::string> data;  // --data F[,F...]
  std::string out;                // --out DIR
  Method method = Method::perft_r;

  int experts = 0;                        // M; 1 for perft-s, 0 = the base's own number (perft-e), 0 for lora and full
  int top_k = 0;                          // K of perft-r, else 0
  int rank = 8;                           // 0 for full
  double alpha = 16;                      // 2 * rank unless given
  double dropout = 0.05;                  // 0 for full
  Delta delta = Delta::lora;              // form of a PEFT expert
  std::vector<std::string> lora_targets;  // empty unless method is lora
  RouterWeights router_weights = RouterWeights::own;
  RouterDtype router_dtype = RouterDtype::f32;

  std::optional<std::int64_t> epochs;            // default: kDefaultEpochs, or the saved run's
  std::optional<std::int64_t> max_steps;         // also the schedule's length; wins over epochs
  std::int64_t batch_size = 16;                  // rows of one optimizer step
  std::optional<std::int64_t> micro_batch_size;  // <= batch_size; default: chosen from the memory budget
  std::optional<double> lr;                      // default: 1e-5 for OLMoE, 2e-5 for Mixtral
  std::int64_t warmup = 100;
  double weight_decay = 0;
  double clip = 1.0;          // 0 = no clipping
  std::int64_t cutoff = 256;  // tokens, EOS included
  std::int64_t val_size = 120;
  std::int64_t eval_every = 80;
  std::int64_t save_every = 80;
  std::int64_t keep = 3;
  std::int64_t seed = 42;
  std::string prompt = "alpaca";  // a built-in name or a file
  bool train_on_inputs = true;
  PadRows pad_rows = PadRows::ignore;   // default hf with --prompt perft-paper
  std::optional<double> aux_coef;       // default: the config's router_aux_loss_coef
  std::optional<double> memory_budget;  // GB
  bool resume = false;
};

/// What decides a run's memory and speed: the options of finetune without rows, folders and intervals.
struct PlanOptions : FinetuneOptions {};

enum class DataAction { show, report };

enum class DataPart { train, validation };

/// Row numbers [first, last].
struct RowRange {
  std::int64_t first = 0;
  std::int64_t last = 0;
};

struct DataOptions : CommonOptions {
  DataAction action = DataAction::show;
  FinetuneOptions run;  // model, data, prompt, cutoff, train_on_inputs, val_size and seed, as finetune has them
  std::vector<std::string> row_numbers;  // --rows as given
  std::vector<RowRange> rows;            // the same as numbers; empty: the first few
  std::optional<DataPart> part;          // whose rows are numbered; default: all
};

struct SweepOptions : CommonOptions {
  std::string grid;               // --config: options to share and to cross
  std::string out;                // a folder of runs
  std::string model;              // of all cells; empty: the grid's
  std::vector<std::string> data;  // of all cells; empty: the grid's
  bool list = false;              // run nothing
};

struct ScoreOptions : CommonOptions {
  std::string model;
  std::string adapter;  // empty: the base alone
  std::string input;
  std::string output;
  bool grads = false;
  PadRows pad_rows = PadRows::hf;
  std::optional<double> aux_coef;  // default: the config's router_aux_loss_coef
  std::int64_t steps = 0;          // 0: none
  double lr = 0;                   // given whenever steps > 0
  double clip = 1.0;               // 0 = no clipping
};

struct InspectOptions : CommonOptions {
  std::string dir;
  bool router = false;
  std::vector<std::string> data;  // the text whose expert load is shown; only with router
};

struct TokenizeOptions : CommonOptions {
  std::string model;
  bool decode = false;
  bool no_special_tokens = false;    // encode only: do not add what the post-processor adds
  bool keep_special_tokens = false;  // decode only
};

/// The options a run was started with, every default resolved, in the order of the help text; what `run.toml` holds and
/// `--config` reads back. Left out: --resume, --config and --json, which say how to start and not what to compute.
RunConfig resolved_config(const FinetuneOptions& options);

/// Options saved by `resolved_config` in the file `path` (`run.toml`). Throws IoError with the file and key in the
/// text.
FinetuneOptions read_run_config(const std::string& path);

/// The command line's spelling of a value: "bf16", "perft-r", "authors-olmoe", ...
std::string to_string(Method value);

}  // namespace perft::cli

// The options of `perft finetune` as the library's own structs, and against those of a saved run.

#include "finetune_options.hpp"

#include <algorithm>   // std::min
#include <filesystem>  // run.toml
#include <set>         // options that may change on resuming

#include "engine.hpp"
#include "memory_use.hpp"
#include "perft/train/schedule.hpp"
#include "report_error.hpp"

namespace perft::cli {

AdapterSpec adapter_spec(const FinetuneOptions& options) {
  AdapterSpec spec;
  switch (options.method) {
    case Method::perft_s:
      spec.method = perft::Method::kPerftS;
      break;
    case Method::perft_d:
      spec.method = perft::Method::kPerftD;
      break;
    case Method::perft_r:
      spec.method = perft::Method::kPerftR;
      break;
    case Method::perft_e:
      spec.method = perft::Method::kPerftE;
      break;
    case Method::lora:
      spec.method = perft::Method::kLora;
      break;
    case Method::full:
      fail<UsageError>("--method full has no adapter");
  }
  spec.delta = options.delta == Delta::lora ? DeltaForm::kLora : DeltaForm::kParallel;
  spec.rank = options.rank;
  spec.alpha = options.alpha;
  spec.experts = options.experts;
  spec.top_k = options.top_k;
  spec.dropout = options.dropout;
  spec.router_weights =
      options.router_weights == RouterWeights::own ? perft::RouterWeights::kOwn : perft::RouterWeights::kAuthorsOlmoe;
  spec.targets = options.lora_targets;
  return spec;
}

std::int64_t activation_budget(const FinetuneOptions& options) {
  // The other half of the machine keeps the base's mapped pages in memory.
  return options.memory_budget ? static_cast<std::int64_t>(*options.memory_budget * 1e9) : machine_memory() / 2;
}

ActivationShape training_shape(const FinetuneOptions& options, const ModelConfig& config) {
  const std::int64_t compute_bytes = *options.dtype == Compute::bf16 ? 2 : *options.dtype == Compute::f32 ? 4 : 8;
  ActivationShape shape = activation_shape(config, compute_bytes, *options.dtype == Compute::f64 ? 8 : 4);
  shape.base_trained = options.method == Method::full;
  shape.attention_trained = options.method == Method::lora || shape.base_trained;
  if (!shape.base_trained) {
    shape.adapter = adapter_spec(options).kept_per_token(config.num_experts_per_tok);
  }
  return shape;
}

MicroBatchPlan resolve_options(FinetuneOptions& options, const ModelConfig& config, std::int64_t longest_row) {
  options.dtype = resolve_compute(options);
  if (!options.lr) {
    options.lr = config.family == Family::olmoe ? 1e-5 : 2e-5;  // as published
  }
  if (!options.aux_coef) {
    options.aux_coef = config.router_aux_loss_coef;
  }
  if (options.method == Method::perft_e && options.experts == 0) {
    options.experts = static_cast<int>(config.num_experts);  // so that giving the number changes nothing
  }
  const ActivationShape shape = training_shape(options, config);
  const std::int64_t most = options.micro_batch_size.value_or(options.batch_size);
  const std::int64_t fewest = options.micro_batch_size.value_or(1);  // a number asked for is kept
  const MicroBatchPlan plan =
      plan_micro_batch(shape, most, fewest, std::min(options.cutoff, longest_row), activation_budget(options));
  options.micro_batch_size = plan.rows;
  return plan;
}

TrainerOptions trainer_options(const FinetuneOptions& options, const MicroBatchPlan& plan) {
  TrainerOptions out;
  out.aux_coefficient = *options.aux_coef;
  out.clip = options.clip;
  out.adamw.weight_decay = options.weight_decay;
  out.pad_rows = options.pad_rows;
  out.pad_id = 0;  // as published; also what the authors' tokenizer is told
  out.micro_batch = *options.micro_batch_size;
  out.seed = static_cast<std::uint64_t>(options.seed);
  out.hidden = plan.recompute == Recompute::kGateUp ? HiddenPolicy::kRecompute : HiddenPolicy::kSave;
  out.recompute_layers = plan.recompute == Recompute::kLayer;
  return out;
}

SavedRun::SavedRun(const RunFolder& folder) : path_(folder.file(kOptionsFile)) {
  check<IoError>(std::filesystem::exists(path_), path_, ": is missing, cannot tell what to resume; use another --out");
  options_ = read_run_config(path_);
}

void SavedRun::fill(FinetuneOptions& now) const {
  if (!now.micro_batch_size) {
    now.micro_batch_size = options_.micro_batch_size;
  }
  if (!now.max_steps && !now.epochs) {
    now.max_steps = options_.max_steps;
  }
  if (!now.epochs) {
    now.epochs = options_.epochs;
  }
}

void SavedRun::check_same(const FinetuneOptions& now, std::int64_t rows) const {
  const RunConfig saved = resolved_config(options_);
  const RunConfig current = resolved_config(now);
  std::set<std::string> names;
  for (const RunConfig* config : {&saved, &current}) {
    for (const RunConfig::Entry& entry : config->entries()) {
      names.insert(entry.name);
    }
  }
  // A run may be moved, and take other resources; that it never gets shorter is checked below.
  for (const char* name : {"out", "threads", "epochs", "max-steps", "memory-budget"}) {
    names.erase(name);
  }
  const auto text = [](const RunConfig& config, const std::string& name) {
    const ConfigValue* value = config.find(name);
    return value != nullptr ? RunConfig::value_text(*value) : std::string("not set");
  };
  for (const std::string& name : names) {
    check<IoError>(text(saved, name) == text(current, name), path_, ": --", name, " is ", text(saved, name),
                   " in the saved run and ", text(current, name), " now; resume with the saved options");
  }
  const std::int64_t before = planned_steps(options_, rows);
  const std::int64_t steps = planned_steps(now, rows);
  check<IoError>(steps >= before, path_, ": the saved run has ", before, " steps and this one ", steps,
                 ", expected as many or more; give larger --max-steps or --epochs");
}

std::int64_t planned_steps(const FinetuneOptions& options, std::int64_t rows) {
  return options.max_steps.value_or(optimizer_steps(rows, options.batch_size, options.epochs.value_or(kDefaultEpochs)));
}

}  // namespace perft::cli

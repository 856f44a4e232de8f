// `perft finetune`: what does not depend on the compute type.

#include "finetune.hpp"

#include <filesystem>  // run.toml
#include <set>         // options that may change on resuming

#include "engine.hpp"
#include "finetune_data.hpp"
#include "perft/core/cpu_features.hpp"
#include "perft/io/atomic_file.hpp"
#include "perft/io/mapped_file.hpp"
#include "perft/train/memory_plan.hpp"
#include "report_error.hpp"
#include "run_folder.hpp"

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

MicroBatchPlan resolve_options(FinetuneOptions& options, const ModelConfig& config, std::int64_t longest_row) {
  options.dtype = resolve_compute(options);
  if (!options.lr) {
    options.lr = config.family == Family::olmoe ? 1e-5 : 2e-5;  // as published
  }
  if (!options.aux_coef) {
    options.aux_coef = config.router_aux_loss_coef;
  }
  ActivationShape shape;
  shape.width = config.hidden_size;
  shape.q_width = config.num_attention_heads * config.head_dim;
  shape.kv_width = config.num_key_value_heads * config.head_dim;
  shape.heads = config.num_attention_heads;
  shape.inner = config.intermediate_size;
  shape.experts = config.num_experts;
  shape.top_k = config.num_experts_per_tok;
  shape.layers = config.num_hidden_layers;
  shape.vocab = config.vocab_size;
  shape.compute_bytes = *options.dtype == Compute::bf16 ? 2 : *options.dtype == Compute::f32 ? 4 : 8;
  shape.param_bytes = *options.dtype == Compute::f64 ? 8 : 4;
  shape.attention_trained = options.method == Method::lora || options.method == Method::full;
  // Half of what is free: the other half keeps the base's mapped pages in memory.
  const double budget =
      options.memory_budget ? *options.memory_budget * 1e9 : 0.5 * static_cast<double>(available_memory());
  const std::int64_t most = options.micro_batch_size.value_or(options.batch_size);
  const std::int64_t row_tokens = std::min(options.cutoff, longest_row);
  MicroBatchPlan plan = plan_micro_batch(shape, most, row_tokens, static_cast<std::int64_t>(budget));
  if (options.micro_batch_size && plan.rows < most) {
    // The number of rows was asked for: only recomputation is left to choose.
    plan.rows = most;
    for (const Recompute recompute : {Recompute::kNone, Recompute::kGateUp, Recompute::kLayer}) {
      plan.recompute = recompute;
      plan.bytes = activation_bytes(shape, most * row_tokens, recompute);
      if (static_cast<double>(plan.bytes) <= budget) {
        break;
      }
    }
  }
  options.micro_batch_size = plan.rows;
  return plan;
}

void save_run_config(const RunFolder& folder, const FinetuneOptions& options) {
  write_text_atomically(folder.file("run.toml"), resolved_config(options).to_toml());
}

std::optional<std::int64_t> saved_micro_batch(const RunFolder& folder) {
  const std::string path = folder.file("run.toml");
  return std::filesystem::exists(path) ? read_run_config(path).micro_batch_size : std::nullopt;
}

void check_same_run(const RunFolder& folder, const FinetuneOptions& now) {
  const std::string path = folder.file("run.toml");
  check<IoError>(std::filesystem::exists(path), path, ": is missing, cannot tell what to resume; use another --out");
  const RunConfig saved = resolved_config(read_run_config(path));
  const RunConfig current = resolved_config(now);
  const std::set<std::string> may_change = {"threads", "epochs", "max-steps", "memory-budget"};
  for (const RunConfig::Entry& entry : current.entries()) {
    const ConfigValue* before = saved.find(entry.name);
    const std::string old_text = before != nullptr ? RunConfig::value_text(*before) : "not set";
    const std::string new_text = RunConfig::value_text(entry.value);
    check<IoError>(may_change.count(entry.name) > 0 || old_text == new_text, path, ": --", entry.name, " is ", old_text,
                   " in the saved run and ", new_text, " now; resume with the saved options");
  }
}

int run_finetune(const FinetuneOptions& options) {
  apply_threads(options);
  switch (resolve_compute(options)) {
    case Compute::bf16:
      return finetune_with<bf16>(options);
    case Compute::f32:
      return finetune_with<float>(options);
    case Compute::f64:
      return finetune_with<double>(options);
  }
  return 2;
}

}  // namespace perft::cli

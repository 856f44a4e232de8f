// `perft plan`.

#include "plan.hpp"

#include <fmt/format.h>

#include <algorithm>   // std::min
#include <chrono>      // the speed of products
#include <filesystem>  // sizes of files
#include <iostream>    // results

#include "adapter_layout.hpp"
#include "engine.hpp"
#include "finetune_options.hpp"
#include "memory_use.hpp"
#include "model_files.hpp"
#include "perft/core/gemm.hpp"
#include "perft/core/tensor.hpp"
#include "perft/io/json.hpp"

namespace perft::cli {

namespace {

/// What a whole step reaches of the rate of one large product (bench/results: 0.5 … 0.65 with frozen weights).
constexpr double kStepEfficiency = 0.6;

std::int64_t trained_parameters(const PlanOptions& options, const ModelFiles& model) {
  if (options.method == Method::full) {
    return parameter_count(model.tensors);
  }
  std::int64_t total = 0;
  const ModelConfig& c = model.config;
  for_each_matrix(adapter_spec(options), base_facts(c), [&](const AdapterMatrix& matrix) {
    const std::int64_t widths[] = {c.hidden_size, c.num_experts, c.intermediate_size,
                                   c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim};
    total += matrix.rank * widths[static_cast<std::size_t>(matrix.width)];
  });
  return total;
}

/// Floating-point operations per second of a product of the compute type with bf16 weights, on all threads.
template <ComputeType C>
double product_rate() {
  constexpr std::int64_t m = 512;
  constexpr std::int64_t n = 2048;
  constexpr std::int64_t k = 1024;
  const Tensor<C> a = Tensor<C>::full({m, k}, C(1.0F));
  const Tensor<bf16> b = Tensor<bf16>::full({n, k}, bf16(1.0F));
  Tensor<C> c = Tensor<C>::empty({m, n});
  gemm::Problem<C> problem{m, n, k, {a.data(), dtype_of<C>, k, 1}, {b.data(), DType::bf16, 1, k}};
  problem.c = {c.mutable_data(), dtype_of<C>, n, 1, false};
  double fastest = 1e300;
  double total = 0;
  for (int i = 0; i < 40 && total < 0.3; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    gemm::run(problem);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    fastest = std::min(fastest, seconds);
    total += seconds;
  }
  return 2.0 * static_cast<double>(m * n * k) / fastest;
}

const char* recompute_name(Recompute recompute) {
  return recompute == Recompute::kNone ? "none" : recompute == Recompute::kGateUp ? "gate-up" : "layer";
}

}  // namespace

int run_plan(const PlanOptions& given) {
  PlanOptions options = given;
  apply_threads(options);
  const ModelFiles model = ModelFiles::open(options.model);
  const MicroBatchPlan micro = resolve_options(options, model.config, options.cutoff);
  const ActivationShape shape = training_shape(options, model.config);
  const std::int64_t trained = trained_parameters(options, model);
  std::error_code missing;
  const auto tokenizer = std::filesystem::file_size(options.model + "/tokenizer.json", missing);
  const ProcessMemory memory =
      plan_process(shape, micro.rows * options.cutoff, micro.recompute, trained, checkpoint_bytes(model.tensors),
                   missing ? 0 : static_cast<std::int64_t>(tokenizer), ThreadPool::global().threads());
  const double flops = training_flops(shape, static_cast<double>(options.cutoff), micro.recompute);
  const double rate = with_compute_type(options, []<ComputeType C>() { return product_rate<C>(); });
  const double speed = kStepEfficiency * rate / flops;
  if (options.json) {
    const OrderedJson json = {{"mapped_bytes", memory.mapped},
                              {"trained_parameters", trained},
                              {"parameter_bytes", memory.parameters},
                              {"gradient_bytes", memory.gradients},
                              {"moment_bytes", memory.moments},
                              {"activation_bytes", memory.activations},
                              {"workspace_bytes", memory.workspace},
                              {"program_bytes", memory.program},
                              {"anonymous_bytes", memory.anonymous()},
                              {"resident_bytes", memory.anonymous() + memory.mapped},
                              {"micro_batch_size", micro.rows},
                              {"recompute", recompute_name(micro.recompute)},
                              {"flops_per_token", flops},
                              {"tokens_per_second", speed}};
    std::cout << json.dump() << "\n";
    return 0;
  }
  const auto line = [](const std::string& part, std::int64_t bytes, const std::string& note) {
    std::cout << fmt::format("{:<24} {:>9.3f} GB   {}\n", part, static_cast<double>(bytes) * 1e-9, note);
  };
  line("trained parameters", memory.parameters, fmt::format("{} of them, {} bytes each", trained, shape.param_bytes));
  line("their gradients", memory.gradients, "");
  line("AdamW's moments", memory.moments, "two per parameter");
  line("activations", memory.activations,
       fmt::format("micro-batch of {} x {} tokens; computed again for backward: {}", micro.rows, options.cutoff,
                   recompute_name(micro.recompute)));
  line("workspace", memory.workspace, "packed operands of matrix products");
  line("program", memory.program, "with its tokenizer; a row's ids take 8 bytes a token more");
  line("anonymous at most", memory.anonymous(),
       fmt::format("must fit: this machine has {:.1f} GB", static_cast<double>(machine_memory()) * 1e-9));
  line("base weights, mapped", memory.mapped, "as much as the system has room for; the rest is read again");
  std::cout << fmt::format("{:<24} {:>9.0f}      about; {:.2f} GFLOP a token, products run at {:.0f} GFLOP/s here\n",
                           "tokens per second", speed, flops * 1e-9, rate * 1e-9);
  return 0;
}

}  // namespace perft::cli

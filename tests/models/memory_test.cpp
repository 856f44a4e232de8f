// What a training step's activations take, against the plan that picks micro-batches (train/memory_plan.hpp) and
// against the floor that arithmetic gives.

#include <catch2/catch.hpp>
#include <string>  // folders

#include "models/support/engine.hpp"
#include "perft/core/pool.hpp"
#include "perft/train/memory_plan.hpp"

using namespace perft;

namespace {

/// Four rows of `columns` tokens, every token but the first a target.
Batch long_batch(std::int64_t columns, std::int64_t vocab) {
  Batch batch;
  for (std::int32_t r = 0; r < 4; ++r) {
    const auto begin = static_cast<std::int32_t>(batch.ids.size());
    batch.segments.push_back({begin, static_cast<std::int32_t>(columns), static_cast<std::int32_t>(columns)});
    for (std::int32_t c = 0; c < columns; ++c) {
      batch.ids.push_back(static_cast<std::int32_t>((begin + c) * 7919LL % vocab));
      batch.positions.push_back(c);
      batch.real.push_back(1);
      batch.row.push_back(r);
      batch.column.push_back(c);
      if (c > 0) {
        batch.loss_rows.push_back(begin + c - 1);
        batch.targets.push_back(batch.ids.back());
      }
    }
  }
  return batch;
}

ActivationShape shape_of(const ModelConfig& config) {
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
  return shape;
}

template <ComputeType C>
void check_plan(const std::string& family) {
  models_test::Engine<C> engine(std::string(PERFT_FIXTURES) + "/golden/" + family + "/checkpoint");
  AdapterSpec spec;
  spec.experts = 4;
  spec.top_k = 2;
  engine.attach(spec);
  const Batch batch = long_batch(256, engine.config().vocab_size);
  ActivationShape shape = shape_of(engine.config());
  shape.compute_bytes = sizeof(C);
  for (const Recompute recompute : {Recompute::kNone, Recompute::kGateUp, Recompute::kLayer}) {
    LossOptions options;
    options.lm_scale = 1.0 / static_cast<double>(batch.targets.size());
    options.aux_weight = 0.01;
    options.hidden = recompute == Recompute::kGateUp ? HiddenPolicy::kRecompute : HiddenPolicy::kSave;
    options.recompute_layers = recompute == Recompute::kLayer;
    engine.accumulate(batch, options);  // gradients exist from now on
    MemoryPool::global().reset_peak();
    const std::size_t before = MemoryPool::global().stats().live;
    engine.accumulate(batch, options);
    const auto peak = static_cast<double>(MemoryPool::global().stats().peak - before);
    const auto planned = static_cast<double>(activation_bytes(shape, batch.tokens(), recompute));
    CAPTURE(family, static_cast<int>(recompute), peak, planned);
    CHECK(peak > 0.85 * planned);
    CHECK(peak < 1.15 * planned);
  }
}

}  // namespace

TEST_CASE("a step's peak is what the plan says, within 15 %, for every recomputation") {
  check_plan<float>("olmoe-64x8");
  check_plan<float>("mixtral");
  check_plan<bf16>("olmoe-64x8");
  check_plan<bf16>("mixtral");
}

TEST_CASE("what is kept per token is within 15 % of the floor for the released models") {
  // x, q, k, v, o, lse, x2, gate | up, router, rstd: the least that needs no GEMM to be recomputed.
  const auto floor = [](const ActivationShape& s) {
    return 2 * s.width + 2 * (2 * s.q_width + 2 * s.kv_width) + 4 * s.heads + 2 * s.width + 4 * s.top_k * s.inner +
           4 * s.experts + 8 * s.top_k + 48;
  };
  ActivationShape olmoe{2048, 2048, 2048, 16, 1024, 64, 8, 16, 50304, 2, 4, false};
  ActivationShape mixtral{4096, 4096, 1024, 32, 14336, 8, 2, 32, 32000, 2, 4, false};
  CHECK(100 * saved_bytes_per_token(olmoe, Recompute::kNone) < 115 * floor(olmoe));
  CHECK(100 * saved_bytes_per_token(mixtral, Recompute::kNone) < 115 * floor(mixtral));
  CHECK(floor(olmoe) == 57776);
}

TEST_CASE("a micro-batch is the most rows that fit, and recomputation comes before giving up") {
  ActivationShape olmoe{2048, 2048, 2048, 16, 1024, 64, 8, 16, 50304, 2, 4, false};
  const std::int64_t one = activation_bytes(olmoe, 256, Recompute::kNone);
  const std::int64_t four = activation_bytes(olmoe, 4 * 256, Recompute::kNone);
  CHECK(plan_micro_batch(olmoe, 16, 1, 256, four).rows == 4);
  CHECK(plan_micro_batch(olmoe, 16, 1, 256, four - 1).rows == 2);
  CHECK(plan_micro_batch(olmoe, 16, 1, 256, one).recompute == Recompute::kNone);
  CHECK(plan_micro_batch(olmoe, 16, 1, 256, one - 1).recompute == Recompute::kGateUp);
  CHECK(plan_micro_batch(olmoe, 16, 1, 256, 1).recompute == Recompute::kLayer);
  CHECK(plan_micro_batch(olmoe, 16, 1, 256, 1).rows == 1);
  CHECK(plan_micro_batch(olmoe, 16, 1, 256, 1).bytes == activation_bytes(olmoe, 256, Recompute::kLayer));
  // A number of rows that was asked for is kept, whatever the budget.
  CHECK(plan_micro_batch(olmoe, 4, 4, 256, four).recompute == Recompute::kNone);
  CHECK(plan_micro_batch(olmoe, 4, 4, 256, four - 1).recompute == Recompute::kGateUp);
  CHECK(plan_micro_batch(olmoe, 4, 4, 256, 1).rows == 4);
}

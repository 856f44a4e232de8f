// What a training step computes from its rows: padding forms, micro-batches, dropout keyed by row, weighted auxiliary
// losses.

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "models/support/cases.hpp"
#include "models/support/engine.hpp"
#include "support/close.hpp"

using namespace models_test;
using perft::EncodedRow;
using perft::PadRows;
using support::close;
using Method = reference::RefAdapter::Method;

namespace {

/// 16 rows of different lengths; some labels are -100.
std::vector<EncodedRow> sixteen_rows() {
  std::vector<RowExtent> extents;
  for (std::size_t r = 0; r < 16; ++r) extents.push_back({0, 2 + (5 * r + 3) % 11});
  return rows_of(random_batch(extents, 12, 37, 1, 41));
}

struct Accumulated {
  double lm = 0, aux = 0, adapter_aux = 0;  // aux weighted by each micro-batch's share of the real tokens
  std::vector<double> gradients;
};

/// What Trainer::step accumulates over `rows` in micro-batches of `micro_batch`: a step with learning rate 0.
template <class C>
Accumulated accumulate(Engine<C>& engine, const std::vector<EncodedRow>& rows, std::int64_t micro_batch, double coef,
                       PadRows mode) {
  perft::TrainerOptions options;
  options.aux_coefficient = coef;
  options.pad_rows = mode;
  options.pad_id = 1;
  options.micro_batch = micro_batch;
  options.seed = 9;
  const perft::StepResult result = train_step(engine, rows, options, 2, 0.0);
  Accumulated sum{result.lm, result.aux, result.adapter_aux, {}};
  for (const auto* parameter : engine.trained()) {
    const auto gradient = doubles(parameter->gradient());
    sum.gradients.insert(sum.gradients.end(), gradient.begin(), gradient.end());
  }
  return sum;
}

const std::vector<std::int64_t> kMicroBatches{16, 8, 1, 3, 15};  // of 16 rows

perft::AdapterSpec perft_r(double dropout) {
  perft::AdapterSpec spec;
  spec.method = perft::Method::kPerftR;
  spec.rank = 3;
  spec.alpha = 6;
  spec.experts = 4;
  spec.top_k = 2;
  spec.dropout = dropout;
  return spec;
}

perft::AdapterSpec lora(double dropout) {
  perft::AdapterSpec spec;
  spec.method = perft::Method::kLora;
  spec.rank = 2;
  spec.alpha = 3;
  spec.dropout = dropout;
  spec.targets = {"q_proj", "o_proj", "gate", "up_proj", "down_proj"};
  return spec;
}

perft::AdapterSpec perft_e_parallel(double dropout) {
  perft::AdapterSpec spec;
  spec.method = perft::Method::kPerftE;
  spec.delta = perft::DeltaForm::kParallel;
  spec.rank = 3;
  spec.alpha = 6;
  spec.dropout = dropout;
  return spec;
}

}  // namespace

TEMPLATE_TEST_CASE("without aux 1x16 = 2x8 = 16x1 micro-batches, with and without dropout, in both padding modes", "",
                   float, double) {
  const io_test::TempFolder folder;
  (void)write_random_checkpoint(small_olmoe(), {}, folder.path());
  const auto rows = sixteen_rows();
  const double tolerance = std::same_as<TestType, double> ? 1e-12 : 1e-5;
  for (const double dropout : {0.0, 0.25}) {
    for (const auto& spec : {perft_r(dropout), lora(dropout), perft_e_parallel(dropout)}) {
      for (const PadRows mode : {PadRows::ignore, PadRows::hf}) {
        Engine<TestType> engine(folder.path());
        engine.attach(spec);
        (void)randomise(engine.trained());
        const auto whole = accumulate(engine, rows, 16, 0.0, mode);
        for (const std::int64_t micro_batch : std::span(kMicroBatches).subspan(1)) {
          INFO(perft::method_name(spec.method) << ", dropout " << dropout << ", micro-batches of " << micro_batch);
          const auto parts = accumulate(engine, rows, micro_batch, 0.0, mode);
          CHECK(close(parts.lm, whole.lm, {.rel_to_max = tolerance}));
          CHECK(close(parts.gradients, whole.gradients, {.rel_to_max = tolerance}));
        }
        if (dropout > 0) {  // it is really on, and off outside training
          const perft::Batch batch = perft::ragged_batch(rows, 0, mode, perft::padded_columns(rows), 1);
          const double calm = engine.evaluate(batch, whole_batch(batch, 0.0)).lm;
          CHECK(std::abs(calm - whole.lm) > 1e-4);
          engine.detach();
          engine.attach(perft_r(0.0));
          (void)randomise(engine.trained());
          if (spec.method == perft::Method::kPerftR) {
            CHECK(close(accumulate(engine, rows, 16, 0.0, mode).lm, calm, {.rel_to_max = tolerance}));
          }
        }
      }
    }
  }
}

TEST_CASE("with aux every split is the reference's loss, aux weighted by shares of real tokens") {
  const io_test::TempFolder folder;
  const auto checkpoint = write_random_checkpoint(small_olmoe(), {}, folder.path());
  const auto rows = sixteen_rows();
  const auto columns = static_cast<std::size_t>(perft::padded_columns(rows));
  const reference::RefAdapter adapter{.method = Method::perft_r, .scaling = 2.0, .experts = 4, .top_k = 2};
  Engine<double> engine(folder.path());
  engine.attach(perft_r(0.0));
  const auto params = randomise(engine.trained());
  std::vector<double> losses;
  for (const bool hf : {false, true}) {
    reference::Problem problem{checkpoint.config, checkpoint.weights, adapter, params, {}};
    problem.pad_rows = hf ? reference::PadRows::hf : reference::PadRows::ignore;
    for (const std::int64_t micro_batch : kMicroBatches) {
      INFO((hf ? "hf" : "ignore") << ", micro-batches of " << micro_batch);
      std::vector<reference::RefBatch> parts;
      std::vector<double> shares;
      double tokens = 0;
      for (std::size_t begin = 0; begin < rows.size(); begin += static_cast<std::size_t>(micro_batch)) {
        const std::size_t end = std::min(rows.size(), begin + static_cast<std::size_t>(micro_batch));
        const std::vector<EncodedRow> part(rows.begin() + static_cast<std::ptrdiff_t>(begin),
                                           rows.begin() + static_cast<std::ptrdiff_t>(end));
        parts.push_back(padded_rows(part, columns, 1, hf));
        shares.push_back(0);
        for (const EncodedRow& row : part) shares.back() += static_cast<double>(row.ids.size());
        tokens += shares.back();
      }
      for (double& share : shares) share /= tokens;
      DirectionalDerivatives derivatives(problem, parts, shares);
      const auto sum =
          accumulate(engine, rows, micro_batch, checkpoint.config.aux_coef, hf ? PadRows::hf : PadRows::ignore);
      CHECK(close(sum.lm + checkpoint.config.aux_coef * (sum.aux + sum.adapter_aux), derivatives.total(),
                  {.rel_to_max = 1e-12}));
      losses.push_back(sum.aux + sum.adapter_aux);
      for (const auto* parameter : engine.trained()) {
        INFO(parameter->name());
        CHECK(is_gradient(derivatives, parameter->name(), stored_gradient(*parameter), 1e-10));
      }
    }
  }
  CHECK(std::abs(losses[0] - losses[1]) > 1e-6);  // the split is no mere change of order
}

TEMPLATE_TEST_CASE("left-padded, right-padded and ragged rows agree under ignore, to rounding", "", float, double) {
  const double tolerance = std::same_as<TestType, double> ? 1e-12 : 1e-5;
  for (const std::string& config : {small_olmoe(), small_mixtral(R"({"sliding_window": 4, "pad_token_id": 1})")}) {
    const io_test::TempFolder folder;
    const auto checkpoint = write_random_checkpoint(config, {}, folder.path());
    const auto rows = sixteen_rows();
    Engine<TestType> engine(folder.path());
    engine.attach(perft_r(0.0));
    (void)randomise(engine.trained());
    std::vector<perft::Batch> forms{perft::ragged_batch(rows, 0, PadRows::ignore, 0, 1)};
    for (const bool left : {true, false}) {
      for (const std::size_t columns : {12U, 29U}) {
        forms.push_back(padded(padded_rows(rows, columns, 1, left), 37, PadRows::ignore).batch);
      }
    }
    std::vector<double> first;
    for (const perft::Batch& batch : forms) {
      engine.clear_gradients();
      const perft::Losses losses = engine.accumulate(batch, whole_batch(batch, 0.05));
      std::vector<double> all{losses.lm, losses.aux, losses.adapter_aux};
      for (const auto* parameter : engine.trained()) {
        for (const auto x : parameter->gradient().span()) all.push_back(static_cast<double>(x));
      }
      if (first.empty()) first = all;
      CHECK(close(all, first, {.rel_to_max = tolerance}));
    }
  }
}

TEST_CASE("under hf a ragged batch is the left-padded batch: the first token's target comes from padding") {
  const io_test::TempFolder folder;
  const auto checkpoint = write_random_checkpoint(small_olmoe(), {}, folder.path());
  const auto rows = sixteen_rows();
  const auto columns = perft::padded_columns(rows);
  CHECK(columns == 16);
  Engine<double> engine(folder.path());
  engine.attach(perft_r(0.0));
  const auto params = randomise(engine.trained());
  const perft::Batch ragged = perft::ragged_batch(rows, 0, PadRows::hf, columns, 1);
  reference::Problem problem{checkpoint.config,
                             checkpoint.weights,
                             {.method = Method::perft_r, .scaling = 2.0, .experts = 4, .top_k = 2},
                             params,
                             padded_rows(rows, static_cast<std::size_t>(columns), 1, true)};
  const auto expected = reference_losses(problem);
  const perft::Losses losses = engine.evaluate(ragged, whole_batch(ragged, 0.05));
  CHECK(close(losses.lm, expected.lm, {.rel_to_max = 1e-12}));
  CHECK(close(losses.aux, expected.aux_base, {.rel_to_max = 1e-12}));
  CHECK(close(losses.adapter_aux, expected.aux_peft, {.rel_to_max = 1e-12}));
  CHECK(std::abs(expected.lm - expected.lm_real_rows) > 1e-4);
}

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

/// Accumulates `rows` in micro-batches of the given sizes, as training does.
template <class C>
Accumulated accumulate(Engine<C>& engine, const std::vector<EncodedRow>& rows, const std::vector<std::size_t>& sizes,
                       double coef, PadRows mode, bool training) {
  const std::int64_t columns = perft::padded_columns(rows);
  std::vector<perft::Batch> batches;
  std::size_t begin = 0, targets = 0;
  std::int64_t tokens = 0;
  for (const std::size_t size : sizes) {
    const auto part = std::span(rows).subspan(begin, size);
    batches.push_back(perft::ragged_batch(part, static_cast<std::int32_t>(begin), mode, columns, 1));
    targets += batches.back().targets.size();
    tokens += perft::real_tokens(batches.back());
    begin += size;
  }
  REQUIRE(begin == rows.size());
  engine.clear_gradients();
  Accumulated sum;
  for (const perft::Batch& batch : batches) {
    const double share = static_cast<double>(perft::real_tokens(batch)) / static_cast<double>(tokens);
    perft::LossOptions options;
    options.lm_scale = 1.0 / static_cast<double>(targets);
    options.aux_weight = coef * share;
    options.training = training;
    options.seed = 9;
    options.step = 2;
    const perft::Losses losses = engine.accumulate(batch, options);
    sum.lm += losses.lm;
    sum.aux += share * losses.aux;
    sum.adapter_aux += share * losses.adapter_aux;
  }
  for (const auto* parameter : engine.trained()) {
    const auto gradient = doubles(parameter->gradient());
    sum.gradients.insert(sum.gradients.end(), gradient.begin(), gradient.end());
  }
  return sum;
}

const std::vector<std::vector<std::size_t>> kSplits{
    {16}, {8, 8}, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {3, 1, 7, 5}, {15, 1}};

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
        const auto whole = accumulate(engine, rows, kSplits[0], 0.0, mode, true);
        for (const auto& split : std::span(kSplits).subspan(1)) {
          INFO(perft::method_name(spec.method) << ", dropout " << dropout << ", " << split.size() << " micro-batches");
          const auto parts = accumulate(engine, rows, split, 0.0, mode, true);
          CHECK(close(parts.lm, whole.lm, {.rel_to_max = tolerance}));
          CHECK(close(parts.gradients, whole.gradients, {.rel_to_max = tolerance}));
        }
        if (dropout > 0) {  // it is really on, and off outside training
          const auto calm = accumulate(engine, rows, kSplits[0], 0.0, mode, false);
          CHECK(std::abs(calm.lm - whole.lm) > 1e-4);
          engine.detach();
          engine.attach(perft_r(0.0));
          (void)randomise(engine.trained());
          if (spec.method == perft::Method::kPerftR) {
            CHECK(accumulate(engine, rows, kSplits[0], 0.0, mode, true).lm == calm.lm);
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
    for (const auto& split : {kSplits[0], kSplits[1], kSplits[2], kSplits[3]}) {
      INFO((hf ? "hf, " : "ignore, ") << split.size() << " micro-batches");
      std::vector<reference::RefBatch> parts;
      std::vector<double> shares;
      double tokens = 0;
      std::size_t begin = 0;
      for (const std::size_t size : split) {
        const std::vector<EncodedRow> part(rows.begin() + static_cast<std::ptrdiff_t>(begin),
                                           rows.begin() + static_cast<std::ptrdiff_t>(begin + size));
        parts.push_back(padded_rows(part, columns, 1, hf));
        shares.push_back(0);
        for (const EncodedRow& row : part) shares.back() += static_cast<double>(row.ids.size());
        tokens += shares.back();
        begin += size;
      }
      for (double& share : shares) share /= tokens;
      DirectionalDerivatives derivatives(problem, parts, shares);
      const auto sum =
          accumulate(engine, rows, split, checkpoint.config.aux_coef, hf ? PadRows::hf : PadRows::ignore, false);
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

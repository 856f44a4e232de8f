// Trainer against the naive reference: the accumulated batch's loss and gradients, clipping and AdamW, dropout keyed by
// the step, validation loss and its standard error.

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "models/support/cases.hpp"
#include "models/support/engine.hpp"
#include "models/support/ops_instances.hpp"
#include "ops/support/harness.hpp"
#include "perft/train/trainer.hpp"
#include "reference/adamw.hpp"
#include "support/close.hpp"

namespace perft::inline PERFT_ABI {
extern template class CausalLm<double>;
}

using namespace models_test;
using perft::EncodedRow;
using perft::PadRows;
using support::close;
using Trainer = perft::Trainer<double, perft::CausalLm<double>>;
using Values = std::vector<std::vector<double>>;

namespace {

constexpr std::int64_t kPad = 1;
constexpr support::Tolerance kExact{.rel_to_max = 1e-12};

/// 16 rows of 2 to 12 tokens; some labels are -100.
std::vector<EncodedRow> sixteen_rows() {
  std::vector<RowExtent> extents;
  for (std::size_t r = 0; r < 16; ++r) extents.push_back({0, 2 + (5 * r + 3) % 11});
  return rows_of(random_batch(extents, 12, 37, kPad, 41));
}

/// A tiny OLMoE with random PERFT-R adapters, and the same for the reference.
struct Case {
  io_test::TempFolder folder;
  RandomCheckpoint checkpoint = write_random_checkpoint(small_olmoe(), {}, folder.path());
  Engine<double> engine{folder.path()};
  reference::Problem problem;

  explicit Case(double dropout = 0) {
    const reference::RefAdapter adapter{
        .method = reference::RefAdapter::Method::perft_r, .scaling = 2.0, .experts = 4, .top_k = 2};
    perft::AdapterSpec spec = spec_of(adapter, 3);
    spec.dropout = dropout;
    engine.attach(spec);
    problem = {checkpoint.config, checkpoint.weights, adapter, randomise(engine.trained()), {}};
  }

  Trainer trainer(const perft::TrainerOptions& options) { return {engine.model(), engine.trained(), options}; }

  Values values() {
    Values all;
    for (const auto* parameter : engine.trained()) all.push_back(doubles(parameter->value()));
    return all;
  }

  Values gradients() {
    Values all;
    for (const auto* parameter : engine.trained()) all.push_back(doubles(parameter->gradient()));
    return all;
  }
};

perft::TrainerOptions options_of(PadRows mode, std::int64_t micro_batch, double coef) {
  perft::TrainerOptions options;
  options.aux_coefficient = coef;
  options.clip = 0;
  options.pad_rows = mode;
  options.pad_id = static_cast<std::int32_t>(kPad);
  options.micro_batch = micro_batch;
  return options;
}

/// `rows` in parts of `size`.
std::vector<std::vector<EncodedRow>> parts_of(const std::vector<EncodedRow>& rows, std::size_t size) {
  std::vector<std::vector<EncodedRow>> parts;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (i % size == 0) parts.emplace_back();
    parts.back().push_back(rows[i]);
  }
  return parts;
}

double tokens_of(const std::vector<EncodedRow>& rows) {
  std::size_t tokens = 0;
  for (const EncodedRow& row : rows) tokens += row.ids.size();
  return static_cast<double>(tokens);
}

/// As a collator pads: to a multiple of 8 columns.
std::size_t columns_of(const std::vector<EncodedRow>& rows) {
  std::size_t longest = 0;
  for (const EncodedRow& row : rows) longest = std::max(longest, row.ids.size());
  return (longest + 7) / 8 * 8;
}

reference::PadRows reference_mode(PadRows mode) {
  return mode == PadRows::hf ? reference::PadRows::hf : reference::PadRows::ignore;
}

/// What the reference's losses per target add up to, in all and per row.
struct Scored {
  double sum = 0, targets = 0;
  std::vector<double> row_sums, row_targets;

  double loss() const { return sum / targets; }

  /// sqrt(n / (n − 1) · Σ_r (s_r − L c_r)²) / Σ c.
  double standard_error() const {
    double squares = 0;
    for (std::size_t r = 0; r < row_sums.size(); ++r) squares += std::pow(row_sums[r] - loss() * row_targets[r], 2);
    const auto n = static_cast<double>(row_sums.size());
    return std::sqrt(n / (n - 1) * squares) / targets;
  }
};

Scored score(reference::Problem problem, const std::vector<EncodedRow>& rows, std::size_t batch_rows, PadRows mode) {
  problem.pad_rows = reference_mode(mode);
  Scored scored;
  for (const auto& part : parts_of(rows, batch_rows)) {
    const std::size_t columns = columns_of(part);
    problem.batch = padded_rows(part, columns, kPad, true);
    const auto losses = reference_losses(problem);
    for (std::size_t at = 0; at < losses.nll.size(); ++at) {
      if (at % columns == 0) {
        scored.row_sums.push_back(0);
        scored.row_targets.push_back(0);
      }
      const bool real = problem.batch.attention_mask[at] == 1;
      if (losses.targets[at] == reference::kIgnored || (mode == PadRows::ignore && !real)) continue;
      scored.sum += losses.nll[at];
      scored.targets += 1;
      scored.row_sums.back() += losses.nll[at];
      scored.row_targets.back() += 1;
    }
  }
  return scored;
}

}  // namespace

TEST_CASE(
    "a step's losses and gradients are the reference's: token mean over the batch, aux by shares of real tokens") {
  Case c;
  const auto rows = sixteen_rows();
  const double coef = 0.3;  // large enough to show in every gradient
  c.problem.config.aux_coef = coef;
  for (const PadRows mode : {PadRows::ignore, PadRows::hf}) {
    c.problem.pad_rows = reference_mode(mode);
    for (const std::size_t micro_batch : {16U, 8U, 5U, 1U}) {  // 5: the last has one row
      INFO((mode == PadRows::hf ? "hf" : "ignore") << ", micro-batches of " << micro_batch);
      std::vector<reference::RefBatch> parts;
      std::vector<double> shares;
      double aux = 0, adapter_aux = 0;
      for (const auto& part : parts_of(rows, micro_batch)) {
        parts.push_back(padded_rows(part, columns_of(rows), kPad, true));
        shares.push_back(tokens_of(part) / tokens_of(rows));
        reference::Problem alone = c.problem;
        alone.batch = parts.back();
        const auto losses = reference_losses(alone);
        aux += shares.back() * losses.aux_base;
        adapter_aux += shares.back() * losses.aux_peft;
      }
      DirectionalDerivatives derivatives(c.problem, parts, shares);
      const Scored scored = score(c.problem, rows, rows.size(), mode);

      const Values before = c.values();
      Trainer trainer = c.trainer(options_of(mode, static_cast<std::int64_t>(micro_batch), coef));
      const perft::StepResult result = trainer.step(rows, 1, 0.0);
      CHECK(c.values() == before);
      CHECK(close(result.lm, scored.loss(), kExact));
      CHECK(close(result.aux, aux, kExact));
      CHECK(close(result.adapter_aux, adapter_aux, kExact));
      CHECK(close(result.lm + coef * (aux + adapter_aux), derivatives.total(), kExact));
      CHECK(static_cast<double>(result.tokens) == tokens_of(rows));
      CHECK(static_cast<double>(result.targets) == scored.targets);
      for (const auto* parameter : c.engine.trained()) {
        INFO(parameter->name());
        CHECK(is_gradient(derivatives, parameter->name(), stored_gradient(*parameter), 1e-10));
      }
      (void)trainer.step(rows, 2, 0.0);
      const Values again = c.gradients();
      (void)trainer.step(rows, 3, 0.0);
      CHECK(c.gradients() == again);  // not added to those of the step before
    }
  }
}

TEST_CASE("a step clips by the norm of the whole batch's gradient and applies AdamW with the options given") {
  const auto rows = sixteen_rows();
  for (const double clip : {0.0, 0.01, 1e9}) {
    INFO("clip " << clip);
    Case c;
    perft::TrainerOptions options = options_of(PadRows::ignore, 5, 0.01);
    options.clip = clip;
    options.adamw = {.beta1 = 0.8, .beta2 = 0.95, .eps = 1e-6, .weight_decay = 0.1};
    Trainer trainer = c.trainer(options);
    Values expected = c.values();
    std::vector<reference::AdamWState> states(expected.size());
    const double rates[] = {1e-2, 3e-3};
    for (int step = 1; step <= 2; ++step) {
      const double lr = rates[step - 1];
      const perft::StepResult result = trainer.step(rows, static_cast<std::uint64_t>(step), lr);
      Values gradients = c.gradients();
      std::vector<std::vector<double>*> all;
      for (auto& gradient : gradients) all.push_back(&gradient);
      const double norm = reference::clip_grad_norm(all, clip > 0 ? clip : 1e300);
      CHECK(close(result.gradient_norm, norm, kExact));
      CHECK(norm > 0.01);
      for (std::size_t i = 0; i < expected.size(); ++i) {
        reference::adamw_step(expected[i], gradients[i], states[i], step,
                              {.lr = lr, .beta1 = 0.8, .beta2 = 0.95, .eps = 1e-6, .weight_decay = 0.1});
      }
      const Values values = c.values();
      for (std::size_t i = 0; i < expected.size(); ++i) CHECK(close(values[i], expected[i], kExact));
    }
  }
}

TEST_CASE("a step's dropout is keyed by seed and step, and is the same however the batch is cut") {
  Case c(0.25);
  const auto rows = sixteen_rows();
  perft::TrainerOptions options = options_of(PadRows::ignore, 16, 0.0);
  options.seed = 9;
  Trainer trainer = c.trainer(options);
  (void)trainer.step(rows, 7, 0.0);
  const Values seventh = c.gradients();
  (void)trainer.step(rows, 8, 0.0);
  CHECK(c.gradients() != seventh);
  (void)trainer.step(rows, 7, 0.0);
  CHECK(c.gradients() == seventh);

  const perft::Batch batch = perft::ragged_batch(rows, 0, PadRows::ignore, 0, 1);
  perft::LossOptions one = whole_batch(batch, 0.0);
  one.training = true;
  one.seed = 9;
  one.step = 7;
  c.engine.clear_gradients();
  (void)c.engine.accumulate(batch, one);
  CHECK(c.gradients() == seventh);

  options.micro_batch = 5;
  (void)c.trainer(options).step(rows, 7, 0.0);
  const Values cut = c.gradients();
  for (std::size_t i = 0; i < cut.size(); ++i) CHECK(close(cut[i], seventh[i], {.rel_to_max = 1e-11}));
  options.seed = 10;
  (void)c.trainer(options).step(rows, 7, 0.0);
  CHECK_FALSE(close(c.gradients()[0], cut[0], {.rel_to_max = 1e-3}));
}

TEST_CASE("a step keeps less for backward where it is told to, and reports its largest micro-batch") {
  Case c;
  const auto rows = sixteen_rows();
  perft::TrainerOptions options = options_of(PadRows::ignore, 5, 0.01);
  const std::size_t saved = c.trainer(options).step(rows, 1, 0.0).saved_bytes;
  const Values gradients = c.gradients();
  std::size_t largest = 0;
  for (const auto& part : parts_of(rows, 5)) {
    const perft::Batch batch = perft::ragged_batch(part, 0, PadRows::ignore, 0, 1);
    perft::LossOptions one = whole_batch(batch, 0.01);
    one.training = true;
    largest = std::max(largest, c.engine.accumulate(batch, one).saved_bytes);
  }
  CHECK(saved == largest);

  options.hidden = perft::HiddenPolicy::kRecompute;
  const std::size_t without_hidden = c.trainer(options).step(rows, 1, 0.0).saved_bytes;
  CHECK(without_hidden < saved);
  CHECK(c.gradients() == gradients);
  options.recompute_layers = true;
  CHECK(c.trainer(options).step(rows, 1, 0.0).saved_bytes < without_hidden);
  CHECK(c.gradients() == gradients);
}

TEST_CASE("a step whose loss is not finite throws and leaves values and moments as they were") {
  Case c;
  const auto rows = sixteen_rows();
  Trainer trainer = c.trainer(options_of(PadRows::ignore, 8, 0.01));
  (void)trainer.step(rows, 1, 1e-3);
  const Values moments = {doubles(trainer.optimizer().state()[0].m), doubles(trainer.optimizer().state()[0].v)};
  double& spoilt = c.engine.trained().back()->mutable_value().mutable_span()[0];
  const double good = spoilt;
  const Values before = c.values();
  spoilt = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_AS(trainer.step(rows, 2, 1e-3), perft::NonFiniteError);
  c.engine.trained().back()->mutable_value().mutable_span()[0] = good;
  CHECK(c.values() == before);
  CHECK(trainer.optimizer().state()[0].steps == 1);
  CHECK(Values{doubles(trainer.optimizer().state()[0].m), doubles(trainer.optimizer().state()[0].v)} == moments);
}

TEST_CASE("a step whose gradient alone is not finite throws another error and changes nothing") {
  Case c;
  const auto rows = sixteen_rows();
  Trainer trainer = c.trainer(options_of(PadRows::ignore, 8, std::numeric_limits<double>::infinity()));  // · aux
  const Values before = c.values();
  CHECK(harness::error_text<perft::NonFiniteGradient>([&] { (void)trainer.step(rows, 1, 1e-3); }) ==
        "the gradient norm is not finite");
  CHECK(c.values() == before);
  CHECK(trainer.optimizer().state()[0].steps == 0);
}

TEST_CASE("rows without a single target train the routers' balance alone") {
  Case c;
  auto rows = sixteen_rows();
  for (EncodedRow& row : rows) row.labels.assign(row.ids.size(), perft::kIgnoredLabel);
  const perft::StepResult result = c.trainer(options_of(PadRows::hf, 8, 0.1)).step(rows, 1, 0.0);
  CHECK(result.targets == 0);
  CHECK(result.lm == 0);
  CHECK(result.adapter_aux > 0);
  CHECK(result.gradient_norm > 0);
}

TEST_CASE(
    "validation is the reference's token mean without dropout, in every cut; its standard error has rows as unit") {
  Case c(0.25);
  const auto rows = sixteen_rows();
  for (const PadRows mode : {PadRows::ignore, PadRows::hf}) {
    for (const std::size_t batch_rows : {16U, 5U, 1U}) {
      for (const std::int64_t micro_batch : {16, 2}) {
        INFO((mode == PadRows::hf ? "hf" : "ignore") << ", batches of " << batch_rows << ", " << micro_batch);
        const Scored expected = score(c.problem, rows, batch_rows, mode);
        Trainer trainer = c.trainer(options_of(mode, micro_batch, 0.3));
        const auto result = trainer.validate(rows, static_cast<std::int64_t>(batch_rows));
        CHECK(static_cast<double>(result.targets) == expected.targets);
        CHECK(close(result.loss, expected.loss(), kExact));
        CHECK(close(result.standard_error, expected.standard_error(), kExact));
        CHECK(result.standard_error > 0);
      }
    }
  }
}

TEST_CASE("rows with one target each: the standard error is that of a mean; one row has none") {
  Case c;
  std::vector<EncodedRow> rows;
  for (const std::int32_t id : {3, 9, 20}) rows.push_back({{id, id + 2}, {perft::kIgnoredLabel, id + 2}});
  Trainer trainer = c.trainer(options_of(PadRows::ignore, 2, 0.0));
  std::vector<double> alone;
  for (const EncodedRow& row : rows) {
    const auto result = trainer.validate(std::span(&row, 1), 16);
    CHECK(result.standard_error == 0);
    CHECK(result.targets == 1);
    alone.push_back(result.loss);
  }
  const double mean = (alone[0] + alone[1] + alone[2]) / 3;
  double squares = 0;
  for (const double x : alone) squares += (x - mean) * (x - mean);
  const auto result = trainer.validate(rows, 16);
  CHECK(close(result.loss, mean, kExact));
  CHECK(close(result.standard_error, std::sqrt(squares / 2 / 3), kExact));
  CHECK(trainer.validate(std::span<const EncodedRow>(), 16).loss == 0);
}

TEST_CASE("the change between two validations is paired: its standard error is that of the rows' differences") {
  perft::ValidationResult after;
  after.row_nll = {3.0, 8.0, 4.0};
  after.row_targets = {1.0, 2.0, 1.0};
  const std::vector<double> before{4.0, 9.0, 4.5};
  const perft::Estimate change = perft::validation_change(before, after);
  // Differences -1, -1, -0.5 over 4 targets: mean -0.625; residuals -0.375, 0.25, 0.125.
  CHECK(change.value == Approx(-0.625));
  CHECK(change.standard_error == Approx(std::sqrt((0.375 * 0.375 + 0.25 * 0.25 + 0.125 * 0.125) * 3 / 2) / 4));
  CHECK(perft::validation_change(after.row_nll, after).value == 0);
  CHECK(perft::validation_change(after.row_nll, after).standard_error == 0);
  CHECK_THROWS_WITH(perft::validation_change(std::span(before).first(2), after),
                    "validation: 2 rows before and 3 after, expected the same ones");

  Case c;
  const auto rows = sixteen_rows();
  Trainer trainer = c.trainer(options_of(PadRows::ignore, 4, 0.0));
  const auto start = trainer.validate(rows, 16);
  CHECK(close(std::accumulate(start.row_nll.begin(), start.row_nll.end(), 0.0) / static_cast<double>(start.targets),
              start.loss, kExact));
  trainer.step(rows, 0, 1e-2);
  const auto later = trainer.validate(rows, 16);
  CHECK(close(perft::validation_change(start.row_nll, later).value, later.loss - start.loss, kExact));
}

TEST_CASE("a model whose router inputs would be jittered in training is refused") {
  Case c;
  c.engine.model().config.router_jitter_noise = 0.25;
  CHECK_THROWS_WITH(c.trainer(options_of(PadRows::ignore, 2, 0.0)),
                    "trainer: the model's router_jitter_noise is 0.25, training supports 0; set it to 0");
}

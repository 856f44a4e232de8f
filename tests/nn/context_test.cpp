#include "perft/nn/context.hpp"

#include <catch2/catch.hpp>
#include <memory>
#include <vector>

#include "ops/support/harness.hpp"
#include "support/close.hpp"

using harness::Values;

namespace {

perft::Batch batch() {
  perft::Batch b;
  b.ids = {5, 6, 7};
  b.positions = {0, 1, 4};
  b.segments = {{0, 2, 2}, {2, 1, 0}};
  b.real = {1, 1, 0};
  b.row = {8, 8, -1};
  b.column = {0, 1, 0};
  return b;
}

perft::ForwardContext<double> context() {
  return perft::make_context<double>(batch(), 4, 100.0);
}

perft::Variable<double> logits(const Values& v) {
  return harness::tensor<double>(v, {3, 2});
}

std::vector<std::int32_t> ids(const perft::Routing<double>& routing) {
  return {routing.ids.span().begin(), routing.ids.span().end()};
}

Values mask(const perft::Dropout& dropout) {
  Values v(64);
  dropout.mask_row(1, 0, v.data(), 64);
  return v;
}

}  // namespace

TEST_CASE("make_context carries the batch's segments, dropout keys, real tokens and positions") {
  const auto c = context();
  CHECK(c.segments->size() == 2);
  CHECK((*c.segments)[1].keys == 0);
  CHECK(c.tokens->row == std::vector<std::int32_t>{8, 8, -1});
  CHECK(c.tokens->column == std::vector<std::int32_t>{0, 1, 0});
  CHECK(*c.real == std::vector<std::uint8_t>{1, 1, 0});
  // RoPE of (1, 0 | 0, 0) at position 4: (cos 4, sin 4) in the first pair.
  const auto x = perft::rope(
      perft::Variable<double>(harness::tensor<double>({0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}, {3, 4})), c.rope);
  CHECK(support::close(x.value().span()[8], std::cos(4.0), {.abs = 1e-12}));
  CHECK(support::close(x.value().span()[10], std::sin(4.0), {.abs = 1e-12}));
}

TEST_CASE("a batch whose columns, segments or targets do not fit is refused") {
  const auto refusal = [](auto change) {
    perft::Batch b = batch();
    b.loss_rows = {0, 1};
    b.targets = {6, 7};
    change(b);
    return harness::error_text<perft::ShapeError>([&] { (void)perft::make_context<double>(b, 4, 100.0); });
  };
  CHECK(refusal([](auto&) {}) == "nothing was thrown");
  CHECK(refusal([](auto& b) { b.ids.push_back(1); }) == "batch: positions has 3 entries, expected one per token (4)");
  CHECK(refusal([](auto& b) { b.positions.pop_back(); }) ==
        "batch: positions has 2 entries, expected one per token (3)");
  CHECK(refusal([](auto& b) { b.real.clear(); }) == "batch: real has 0 entries, expected one per token (3)");
  CHECK(refusal([](auto& b) { b.row.push_back(0); }) == "batch: row has 4 entries, expected one per token (3)");
  CHECK(refusal([](auto& b) { b.column.pop_back(); }) == "batch: column has 2 entries, expected one per token (3)");
  const std::string expected = " with at least 1 query and 0 … queries keys";
  CHECK(refusal([](auto& b) { b.segments[1].begin = 1; }) ==
        "batch: segment 1 begins at 1 with 1 queries and 0 keys, expected to begin at 2" + expected);
  CHECK(refusal([](auto& b) { b.segments[0].keys = 3; }) ==
        "batch: segment 0 begins at 0 with 2 queries and 3 keys, expected to begin at 0" + expected);
  CHECK(refusal([](auto& b) { b.segments[0].keys = -1; }) ==
        "batch: segment 0 begins at 0 with 2 queries and -1 keys, expected to begin at 0" + expected);
  CHECK(refusal([](auto& b) { b.segments[0].queries = 0; }).starts_with("batch: segment 0 begins at 0 with 0 queries"));
  CHECK(refusal([](auto& b) { b.segments.pop_back(); }) == "batch: the segments end at token 2, expected all 3");
  CHECK(refusal([](auto& b) { b.targets.pop_back(); }) ==
        "batch: targets has 1 entries, expected one per loss row (2)");
  CHECK(refusal([](auto& b) { b.loss_rows[1] = 3; }) == "batch: loss_rows[1] is 3, expected a token from 0 to 2");
  CHECK(refusal([](auto& b) { b.loss_rows[0] = -1; }) == "batch: loss_rows[0] is -1, expected a token from 0 to 2");
}

TEST_CASE("dropout is on in training alone, and its mask depends on seed, step, layer and site") {
  auto c = context();
  CHECK_FALSE(c.dropout(0.5, 1).active());
  c.training = true;
  CHECK_FALSE(c.dropout(0.0, 1).active());
  REQUIRE(c.dropout(0.5, 1).active());
  const Values first = mask(c.dropout(0.5, 1));
  CHECK(mask(c.dropout(0.5, 1)) == first);
  CHECK(mask(c.dropout(0.5, 2)) != first);
  for (std::uint64_t* field : {&c.seed, &c.step}) {
    ++*field;
    CHECK(mask(c.dropout(0.5, 1)) != first);
    --*field;
  }
  c.layer = 1;
  CHECK(mask(c.dropout(0.5, 1)) != first);
}

TEST_CASE("a recomputed router takes the recorded choice, whatever its logits say, and is not counted again") {
  auto c = context();
  perft::RoutingTrace<> trace;
  c.trace = &trace;
  const auto balance = std::make_shared<perft::LoadBalance>(2);
  const auto first = c.route(logits({0, 1, 2, 0, 0, 3}), 1, false, balance);
  const auto second = c.route(logits({9, 0, 9, 0, 9, 0}), 1, false, nullptr);
  CHECK(ids(first) == std::vector<std::int32_t>{1, 0, 1});
  CHECK(trace.ids.size() == 2);
  const double aux = balance->value();

  c.recomputing = true;
  trace.next = 0;
  const auto again = c.route(logits({1, 0, 0, 1, 1, 0}), 1, false, balance);  // every preference turned round
  CHECK(ids(again) == ids(first));
  CHECK(ids(c.route(logits({0, 9, 0, 9, 0, 9}), 1, false, nullptr)) == ids(second));
  CHECK(balance->value() == aux);
  CHECK(trace.ids.size() == 2);
  // The weights are those of the new logits at the old choice.
  CHECK(support::close(again.weights.value().span()[0], 1 / (1 + std::exp(1.0)), {.abs = 1e-12}));

  c.layer = 3;
  CHECK(harness::error_text<perft::Error>([&] {
          (void)c.route(logits({0, 1, 0, 1, 0, 1}), 1, false, nullptr);
        }).find("router: nothing recorded to replay in layer 3") != std::string::npos);
}

TEST_CASE("padding tokens do not count in the load balance") {
  auto c = context();
  const auto balance = std::make_shared<perft::LoadBalance>(2);
  (void)c.route(logits({0, 0, 0, 0, 0, 50}), 1, false, balance);  // the third token is padding
  // Two real tokens choose expert 0 with probability 1/2: 2 · (1 · 1/2 + 0 · 1/2).
  CHECK(support::close(balance->value(), 1.0, {.abs = 1e-12}));
}

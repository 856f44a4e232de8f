#include "perft/ops/routing_plan.hpp"

#include <catch2/catch.hpp>  // test cases

#include "ops/support/harness.hpp"

using namespace harness;
using perft::make_routing_plan;
using perft::RoutingPlan;
using perft::ValueError;
using Ints = std::vector<std::int32_t>;

TEST_CASE("routing_plan: entries grouped by expert, tokens ascending, and the way back") {
  const RoutingPlan plan = make_routing_plan(int_tensor({2, 0, 0, 3, 3, 2, 2, 0}, {4, 2}), 5);
  CHECK(plan.tokens_count == 4);
  CHECK(plan.top_k == 2);
  CHECK(plan.experts() == 5);
  CHECK(plan.entries() == 8);
  CHECK(plan.offsets == Ints{0, 3, 3, 6, 8, 8});
  CHECK(plan.tokens == Ints{0, 1, 3, 0, 2, 3, 1, 2});
  CHECK(plan.slots == Ints{1, 0, 1, 0, 1, 0, 1, 0});
  CHECK(plan.positions == Ints{3, 0, 1, 6, 7, 4, 5, 2});
}

TEST_CASE("routing_plan: what holds for any routing") {
  for (const auto& [tokens, k, n] : std::vector<std::tuple<std::int64_t, std::int64_t, std::int64_t>>{
           {0, 2, 3}, {1, 1, 1}, {37, 1, 64}, {101, 8, 64}, {13, 3, 3}}) {
    CAPTURE(tokens, k, n);
    Ints ids;
    for (const double x : numbers(tokens * k, 5)) {
      ids.push_back(std::min(static_cast<std::int32_t>(n) - 1,
                             static_cast<std::int32_t>((x + 1.0) / 2.0 * static_cast<double>(n))));
    }
    const RoutingPlan plan = make_routing_plan(int_tensor(ids, {tokens, k}), n);
    REQUIRE(plan.offsets.size() == static_cast<std::size_t>(n) + 1);
    CHECK(plan.offsets.front() == 0);
    CHECK(plan.offsets.back() == tokens * k);
    bool right = true;
    for (std::size_t e = 0; e < static_cast<std::size_t>(n); ++e) {
      right = right && plan.offsets[e] <= plan.offsets[e + 1];
      for (auto p = static_cast<std::size_t>(plan.offsets[e]); p < static_cast<std::size_t>(plan.offsets[e + 1]); ++p) {
        const auto entry = static_cast<std::size_t>(plan.tokens[p] * k + plan.slots[p]);
        right = right && ids[entry] == static_cast<std::int32_t>(e) &&
                plan.positions[entry] == static_cast<std::int32_t>(p);
        right = right && (p == static_cast<std::size_t>(plan.offsets[e]) || plan.tokens[p - 1] <= plan.tokens[p]);
      }
    }
    CHECK(right);
  }
}

TEST_CASE("routing_plan: error texts") {
  const auto text = [](const Ints& ids) {
    return error_text<ValueError>([&] { make_routing_plan(int_tensor(ids, {2, 2}), 3); });
  };
  CHECK(text({0, 1, 2, 3}) == "routing_plan: token 1 chose expert 3, expected [0, 3)");
  CHECK(text({0, -1, 2, 1}) == "routing_plan: token 0 chose expert -1, expected [0, 3)");
  CHECK(error_text<perft::ShapeError>([] {
          make_routing_plan(int_tensor({0, 1}, {2}), 3);
        }) == "routing_plan: ids are [2], expected [T, K]");
  // Only the shape is looked at: two elements stand for 2^31.
  const std::int32_t two[2] = {0, 0};
  const auto many = perft::Tensor<std::int32_t>::mapped(two, {1 << 28, 8}, nullptr, "ids");
  CHECK(error_text<perft::ShapeError>([&] { make_routing_plan(many, 3); }) ==
        "routing_plan: ids are [268435456, 8]: more than 2147483647 (token, slot) pairs; use a smaller micro-batch");
}

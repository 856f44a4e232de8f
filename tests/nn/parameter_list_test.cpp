#include "perft/nn/parameter_list.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "ops/support/harness.hpp"

namespace {

struct Fake {
  perft::Weight<float> mapped = harness::frozen<float>("mapped", {1, 2, 3, 4.5}, perft::DType::bf16, 2, 2).weight;
  perft::Weight<float> owned{"owned", harness::tensor<float>({1, 2}, {1, 2})};
  perft::Parameter<float> norm{"norm", harness::tensor<float>({1, 2}, {2})};
  perft::Parameter<float> adapter{"adapter", harness::tensor<float>({1}, {1})};

  void visit(perft::Visitor<float>& visitor) {
    visitor.weight(mapped);
    visitor.parameter(norm);
    visitor.weight(owned);
    visitor.parameter(adapter);
  }
};

std::vector<std::string> names(Fake& fake) {
  std::vector<std::string> found;
  for (const auto* parameter : perft::trainable_parameters<float>(fake)) found.push_back(parameter->name());
  return found;
}

}  // namespace

TEST_CASE("trainable parameters are listed in the order visited, frozen ones not at all") {
  Fake fake;
  CHECK(names(fake).empty());
  fake.adapter.set_trainable(true);
  fake.owned.parameter()->set_trainable(true);
  CHECK(names(fake) == std::vector<std::string>{"owned", "adapter"});
  CHECK(perft::trainable_parameters<float>(fake)[1] == &fake.adapter);
}

TEST_CASE("train_everything makes masters of mapped matrices, widened exactly") {
  Fake fake;
  perft::train_everything<float>(fake);
  CHECK(names(fake) == std::vector<std::string>{"mapped", "norm", "owned", "adapter"});
  CHECK(harness::values(fake.mapped.parameter()->value()) == harness::Values{1, 2, 3, 4.5});
  CHECK(fake.mapped.dtype() == perft::DType::f32);
}

TEST_CASE("as_stored turns back what is held transposed, and nothing else") {
  perft::Parameter<float> p("b", harness::tensor<float>({1, 2, 3, 4, 5, 6}, {2, 3}));
  CHECK(perft::as_stored(p, p.value()).data() == p.value().data());
  p.set_stored_transposed(true);
  const auto stored = perft::as_stored(p, p.value());
  CHECK(stored.shape() == perft::Shape{3, 2});
  CHECK(stored.contiguous());
  CHECK(harness::values(stored) == harness::Values{1, 4, 2, 5, 3, 6});
}

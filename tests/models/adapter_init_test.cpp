// Initial values of adapters on whole models.

#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "models/support/adapters.hpp"
#include "models/support/cases.hpp"
#include "models/support/engine.hpp"

using namespace models_test;
using perft::AdapterSpec;
using perft::Method;

TEST_CASE("initial values depend on seed and name alone: not on what else is attached, its order, or the type") {
  const Model model;
  Engine<float> alone(model.folder.path()), together(model.folder.path()), first(model.folder.path());
  const AdapterSpec q = lora_with({"q_proj"}), both = lora_with({"v_proj", "q_proj"});
  alone.attach(q, 5);
  together.attach(both, 5);
  const auto a = values_by_name(alone.trained()), t = values_by_name(together.trained());
  CHECK(a.size() == 4);
  CHECK(t.size() == 8);
  for (const auto& [name, value] : a) CHECK(t.at(name) == value);

  const AdapterSpec perft = spec_with(Method::kPerftR, 4, 2);
  alone.attach(perft, 5);
  first.attach(perft, 5);
  first.attach(q, 5);
  CHECK(values_by_name(alone.trained()) == values_by_name(first.trained()));

  Engine<double> wide(model.folder.path());
  wide.attach(q, 5);
  for (const auto& [name, value] : values_by_name(wide.trained())) {
    for (std::size_t i = 0; i < value.size(); ++i) {
      CHECK(static_cast<double>(static_cast<float>(value[i])) == a.at(name)[i]);
    }
  }
  Engine<float> other(model.folder.path());
  other.attach(q, 6);
  CHECK(values_by_name(other.trained()) != a);
  std::set<std::vector<double>> distinct;
  std::size_t matrices = 0;
  for (const auto& [name, value] : values_by_name(first.trained())) {
    if (value[0] != 0) {
      distinct.insert(value);
      ++matrices;
    }
  }
  CHECK(distinct.size() == matrices);  // no two parameters start alike
}

TEST_CASE("PERFT-R's router starts normal with initializer_range") {
  const io_test::TempFolder folder;
  (void)write_random_checkpoint(
      small_olmoe(R"({"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4})"), {}, folder.path());
  Engine<float> engine(folder.path());
  engine.attach(spec_with(Method::kPerftR, 64, 2), 3, 0.02);
  double sum = 0, squares = 0, n = 0;
  for (const auto* parameter : engine.trained()) {
    if (!parameter->name().ends_with("perft.router.weight")) continue;
    CHECK(parameter->value().shape() == perft::Shape{64, 64});
    for (const double x : stored_value(*parameter)) {
      sum += x;
      squares += x * x;
      n += 1;
    }
  }
  REQUIRE(n == 2 * 64 * 64);
  CHECK(std::abs(sum / n) < 5 * 0.02 / std::sqrt(n));
  CHECK(std::abs(squares / n / 4e-4 - 1) < 5 * std::sqrt(2 / n));
}

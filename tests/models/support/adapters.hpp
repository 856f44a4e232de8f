#pragma once
// Specs, a small model and the parameters' values by name: what tests of adapters on whole models begin with.

#include <map>      // values
#include <string>   // names
#include <utility>  // std::move
#include <vector>   // values

#include "models/support/cases.hpp"
#include "models/support/engine.hpp"

namespace models_test {

inline perft::AdapterSpec spec_with(perft::Method method, std::int64_t experts, std::int64_t top_k,
                                    perft::DeltaForm delta = perft::DeltaForm::kLora) {
  perft::AdapterSpec spec;
  spec.method = method;
  spec.delta = delta;
  spec.rank = 3;
  spec.alpha = 5;
  spec.experts = experts;
  spec.top_k = top_k;
  return spec;
}

inline perft::AdapterSpec lora_with(std::vector<std::string> targets) {
  perft::AdapterSpec spec = spec_with(perft::Method::kLora, 0, 0);
  spec.targets = std::move(targets);
  return spec;
}

struct Model {
  io_test::TempFolder folder;

  explicit Model(const std::string& config = small_olmoe()) {
    (void)write_random_checkpoint(config, {}, folder.path());
  }
};

template <class P>
std::map<std::string, std::vector<double>> values_by_name(const std::vector<perft::Parameter<P>*>& parameters) {
  std::map<std::string, std::vector<double>> values;
  for (const auto* parameter : parameters) values[parameter->name()] = stored_value(*parameter);
  return values;
}

}  // namespace models_test

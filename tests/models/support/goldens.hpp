#pragma once
// The golden variants as problems for the engine.

#include <set>     // names
#include <string>  // names
#include <vector>  // variants

#include "models/support/cases.hpp"
#include "models/support/engine.hpp"
#include "reference/golden_case.hpp"

namespace models_test {

using support::golden_batches;
using support::golden_variants;
using Variant = support::GoldenVariant;

inline std::filesystem::path golden_family(const Variant& variant) {
  return support::golden_folder() / variant.family;
}

inline support::GoldenFile load_golden(const Variant& variant) {
  return support::read_golden(variant);
}

/// Sets each parameter to the file's value; names on either side alone are reported in the result.
template <class P>
std::set<std::string> set_values(const std::vector<perft::Parameter<P>*>& parameters,
                                 const std::map<std::string, std::vector<double>>& values) {
  std::set<std::string> unmatched;
  for (const auto& [name, value] : values) unmatched.insert(name);
  for (perft::Parameter<P>* parameter : parameters) {
    const auto found = values.find(parameter->name());
    if (found == values.end()) {
      unmatched.insert(parameter->name());
      continue;
    }
    unmatched.erase(parameter->name());
    perft::Shape shape = parameter->value().shape();
    if (parameter->stored_transposed()) std::swap(shape[0], shape[1]);
    auto value = perft::Tensor<P>::empty(shape);
    for (std::size_t i = 0; i < found->second.size(); ++i) {
      value.mutable_data()[i] = static_cast<P>(found->second[i]);
    }
    parameter->mutable_value() = perft::as_stored(*parameter, value);
  }
  return unmatched;
}

}  // namespace models_test

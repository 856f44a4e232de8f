#pragma once
// The golden variants as problems for the engine.

#include <set>     // names
#include <string>  // names
#include <vector>  // variants

#include "models/support/cases.hpp"
#include "models/support/engine.hpp"
#include "reference/golden_case.hpp"

namespace models_test {

struct Variant {
  const char* family;
  const char* name;
};

/// All files of tests/fixtures/golden.
inline const std::vector<Variant>& golden_variants() {
  static const std::vector<Variant> variants = [] {
    std::vector<Variant> all{{"olmoe", "full"}, {"olmoe", "perft-e"}, {"olmoe", "perft-r-4-2-parallel"}};
    for (const char* family : {"olmoe", "mixtral"}) {
      for (const char* name : {"base", "lora-qv", "lora-gate", "lora-experts", "perft-s", "perft-d-2", "perft-r-4-2",
                               "perft-r-4-2-released", "perft-e-parallel"}) {
        all.push_back({family, name});
      }
    }
    for (const char* name : {"lora-ko-gate", "perft-d-3", "perft-r-6-3"}) all.push_back({"olmoe-64x8", name});
    return all;
  }();
  return variants;
}

inline std::filesystem::path golden_family(const Variant& variant) {
  return support::golden_folder() / variant.family;
}

inline support::GoldenFile load_golden(const Variant& variant) {
  return support::read_golden(golden_family(variant) / (std::string(variant.name) + ".safetensors"));
}

/// Prefixes of the batches in a golden file: left-padded, right-padded, not padded.
inline std::vector<std::string> golden_batches(const support::GoldenFile& golden) {
  std::vector<std::string> prefixes;
  for (const char* prefix : {"", "right.", "nopad."}) {
    if (golden.has(std::string(prefix) + "logits")) prefixes.emplace_back(prefix);
  }
  return prefixes;
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

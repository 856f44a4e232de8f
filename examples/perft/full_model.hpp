#pragma once
// Writing a fully trained model as a hub checkpoint.

#include <cmath>   // std::isfinite
#include <map>     // parameters by name
#include <string>  // paths
#include <vector>  // tensors

#include "copy_file.hpp"
#include "perft/io/safetensors_writer.hpp"
#include "perft/models/tensor_table.hpp"
#include "perft/nn/parameter_list.hpp"

namespace perft::cli {

/// Throws NonFiniteError naming the tensor: numbers that are not finite are never written.
template <class T>
void check_finite(const std::vector<T>& values, const std::string& name) {
  for (const T value : values) {
    check<NonFiniteError>(std::isfinite(static_cast<float>(value)), "tensor '", name,
                          "' is not finite and is not saved; lower --lr");
  }
}

/// Every tensor in hub order under hub names, rounded once to the dtype it had in the base; configuration and tokenizer
/// copied. One file: model.safetensors.
template <ComputeType C, class Model>
void save_full_model(Model& model, const CheckpointTensors& base, const std::string& base_dir, const std::string& dir) {
  using P = Param<C>;
  std::map<std::string, const Parameter<P>*> parameters;
  for (const Parameter<P>* parameter : trainable_parameters<C>(model)) {
    parameters[parameter->name()] = parameter;
  }
  std::vector<TensorHeader> headers;
  for (std::size_t i = 0; i < base.specs().size(); ++i) {
    headers.push_back({base.specs()[i].name, base.entries()[i].dtype == DType::bf16 ? DType::bf16 : DType::f32,
                       base.specs()[i].shape});
  }
  SafetensorsWriter writer(dir + "/model.safetensors", headers, {{"format", "pt"}});
  for (const TensorHeader& header : headers) {
    const auto found = parameters.find(header.name);
    check(found != parameters.end(), "full fine-tuning: tensor '", header.name, "' was not trained");
    const std::span<const P> value = found->second->value().span();
    const auto n = static_cast<std::int64_t>(value.size());
    if (header.dtype == DType::bf16) {
      std::vector<bf16> rounded(value.size());
      vec::convert(value.data(), rounded.data(), n);
      check_finite(rounded, header.name);
      writer.write(rounded.data(), rounded.size() * sizeof(bf16));
    } else {
      std::vector<float> rounded(value.size());
      vec::convert(value.data(), rounded.data(), n);
      check_finite(rounded, header.name);
      writer.write(rounded.data(), rounded.size() * sizeof(float));
    }
  }
  writer.commit();
  for (const char* name : kFilesBesideWeights) {
    copy_if_there(base_dir, dir, name);
  }
}

}  // namespace perft::cli

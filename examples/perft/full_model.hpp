#pragma once
// Writing a fully trained model as a hub checkpoint.

#include <cmath>   // std::isfinite
#include <map>     // parameters by name
#include <span>    // values
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

/// Hands every trained tensor to `writer`, rounded to the dtype of its header.
template <class P, class Writer>
void write_trained(Writer& writer, const std::vector<TensorHeader>& headers,
                   const std::map<std::string, const Parameter<P>*>& parameters) {
  const auto write_as = [&]<class T>(std::vector<T> rounded, std::span<const P> value, const std::string& name) {
    rounded.resize(value.size());
    vec::convert(value.data(), rounded.data(), static_cast<std::int64_t>(value.size()));
    check_finite(rounded, name);
    writer.write(rounded.data(), rounded.size() * sizeof(T));
  };
  for (const TensorHeader& header : headers) {
    const auto found = parameters.find(header.name);
    check(found != parameters.end(), "full fine-tuning: tensor '", header.name, "' was not trained");
    const std::span<const P> value = found->second->value().span();
    if (header.dtype == DType::bf16) {
      write_as(std::vector<bf16>(), value, header.name);
    } else {
      write_as(std::vector<float>(), value, header.name);
    }
  }
  writer.commit();
}

/// Every tensor in hub order under hub names, rounded once to the dtype it had in the base; configuration and tokenizer
/// copied. One file: model.safetensors, which is read back and compared, tensor by tensor.
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
  const SafetensorsMetadata metadata = {{"format", "pt"}};
  SafetensorsWriter writer(dir + "/model.safetensors", headers, metadata);
  write_trained(writer, headers, parameters);
  SafetensorsReadBack written(dir + "/model.safetensors", headers, metadata);
  write_trained(written, headers, parameters);
  for (const char* name : kFilesBesideWeights) {
    copy_if_there(base_dir, dir, name);
  }
}

}  // namespace perft::cli

#pragma once
// Adapter folders: adapter_config.json + adapter_model.safetensors (F32; F64 never leaves the process).

#include <algorithm>   // std::sort
#include <cmath>       // std::isfinite
#include <filesystem>  // does the folder hold an adapter
#include <map>         // tensors by name
#include <string>      // names
#include <vector>      // tensors

#include "perft/core/vec/bytes.hpp"
#include "perft/io/atomic_file.hpp"
#include "perft/io/safetensors.hpp"
#include "perft/io/safetensors_writer.hpp"
#include "perft/nn/parameter_list.hpp"
#include "perft/peft/adapter_config.hpp"
#include "perft/peft/attach.hpp"

namespace perft::inline PERFT_ABI {

/// F32 copies of named parameters as files hold them, sorted by name: what a writer needs, kept alive.
template <class P, class Device = Cpu>
class StoredParameters {
 public:
  explicit StoredParameters(std::vector<Parameter<P, Device>*> parameters) {
    std::sort(parameters.begin(), parameters.end(), [](auto* a, auto* b) { return a->name() < b->name(); });
    for (const Parameter<P, Device>* parameter : parameters) {
      const Tensor<P> value = as_stored(*parameter, parameter->value());
      values_.emplace_back(static_cast<std::size_t>(value.numel()));
      vec::convert(value.data(), values_.back().data(), value.numel());
      for (const float x : values_.back()) {
        check<NonFiniteError>(std::isfinite(x), "tensor '", parameter->name(),
                              "' is not finite and is not saved; lower the learning rate");
      }
      tensors_.push_back({parameter->name(),
                          DType::f32,
                          {value.shape().begin(), value.shape().end()},
                          values_.back().data(),
                          values_.back().size() * sizeof(float)});
    }
  }

  const std::vector<TensorToWrite>& tensors() const { return tensors_; }

 private:
  std::vector<std::vector<float>> values_;
  std::vector<TensorToWrite> tensors_;
};

/// Writes the attached adapters' parameters, trained or frozen, and `spec` as both files into the existing folder
/// `dir`: the tensors first, then the configuration, each atomically. The bytes of adapter_model.safetensors depend on
/// the values alone; they are read back and compared. Throws IoError if a file cannot be written or differs.
template <ComputeType C, class Device = Cpu, class Model>
void save_adapter(Model& model, const AdapterSpec& spec, const BaseFacts& base, const std::string& dir) {
  const StoredParameters<Param<C>, Device> stored(adapter_parameters<C, Device>(model));
  write_safetensors(dir + "/adapter_model.safetensors", stored.tensors());
  read_back_safetensors(dir + "/adapter_model.safetensors", stored.tensors());
  write_text_atomically(dir + "/adapter_config.json", adapter_config_json(spec, base).dump(1) + "\n");
}

/// Fills the model's adapter parameters (attach()ed before) from a file. Strict: every tensor used exactly once;
/// shapes, float dtypes and finiteness checked. Throws IoError naming file and tensor.
template <ComputeType C, class Device = Cpu, class Model>
void load_adapter_weights(Model& model, const std::string& path) {
  using P = Param<C>;
  const SafetensorsFile file = SafetensorsFile::open(path);
  std::map<std::string, bool> used;
  for (const TensorEntry& entry : file.tensors()) {
    used[entry.name] = false;
  }
  for (Parameter<P, Device>* parameter : adapter_parameters<C, Device>(model)) {
    const TensorEntry* entry = file.find(parameter->name());
    check<IoError>(entry != nullptr, path, ": tensor '", parameter->name(),
                   "' is missing; check adapter_config.json against the file");
    Shape shape = parameter->value().shape();
    if (parameter->stored_transposed()) {
      std::swap(shape[0], shape[1]);
    }
    check<IoError>(Shape(entry->shape) == shape, path, ": tensor '", entry->name, "' is ", entry->shape, ", expected ",
                   shape);
    Tensor<P> value = Tensor<P>::empty(shape);
    check<IoError>(entry->dtype == DType::f32 || entry->dtype == DType::bf16 || entry->dtype == DType::f16, path,
                   ": tensor '", entry->name, "' is ", dtype_name(entry->dtype), ", expected F32, BF16 or F16");
    vec::convert_bytes(entry->data, entry->dtype, value.mutable_data(), value.numel());
    for (const P x : value.span()) {
      check<IoError>(std::isfinite(x), path, ": tensor '", entry->name,
                     "' holds a number that is not finite; train the adapter again or use another checkpoint of it");
    }
    parameter->mutable_value() = to_device(as_stored(*parameter, value), Device{});
    used[entry->name] = true;
  }
  for (const auto& [name, was_used] : used) {
    check<IoError>(was_used, path, ": tensor '", name,
                   "' is not one of this adapter's; remove it or use the right file");
  }
}

/// attach() as `spec`, read from the folder `dir`, says, then load_adapter_weights.
template <ComputeType C, class Device = Cpu, class Model>
void load_adapter(Model& model, const AdapterSpec& spec, const std::string& dir) {
  try {
    attach_zeros<C, Device>(model, spec);
  } catch (const ValueError& error) {
    fail<IoError>(dir, "/adapter_config.json: ", error.what());
  }
  load_adapter_weights<C, Device>(model, dir + "/adapter_model.safetensors");
}

/// read_adapter_config, then load_adapter as the folder says. Returns what the folder said.
template <ComputeType C, class Device = Cpu, class Model>
AdapterConfig load_adapter(Model& model, const BaseFacts& base, const std::string& dir) {
  AdapterConfig config = read_adapter_config(dir, base);
  load_adapter<C, Device>(model, config.spec, dir);
  return config;
}

}  // namespace perft::inline PERFT_ABI

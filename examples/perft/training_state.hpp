#pragma once
// training_state.safetensors: what, beside the weights, a resumed run needs to go on exactly as if it had not stopped.

#include <algorithm>  // std::copy
#include <array>      // numbers
#include <cstdint>    // counters
#include <string>     // paths
#include <vector>     // tensors

#include "finetune_session.hpp"
#include "perft/io/safetensors.hpp"
#include "perft/io/safetensors_writer.hpp"
#include "perft/train/adamw.hpp"

namespace perft::cli {

/// Moments are written as they lie in memory (adapters' B matrices transposed), in the parameters' type; so are the
/// parameters themselves if `with_parameters` (the checkpoint's own weights are rounded). Read back and compared.
template <class P>
void save_training_state(const std::string& path, const RunProgress& progress, AdamW<P>& optimizer,
                         bool with_parameters) {
  const std::vector<std::int64_t> counters = {progress.step, progress.best_step, progress.tokens};
  const std::vector<double> values = {progress.best_loss, progress.train_loss, progress.val_loss};
  const auto origin = progress.origin.numbers();
  std::vector<std::int64_t> steps;
  std::vector<TensorToWrite> tensors = {{"counters", DType::i64, {3}, counters.data(), 3 * sizeof(std::int64_t)},
                                        {"values", DType::f64, {3}, values.data(), 3 * sizeof(double)},
                                        {"origin",
                                         DType::i64,
                                         {static_cast<std::int64_t>(origin.size())},
                                         origin.data(),
                                         origin.size() * sizeof(std::int64_t)}};
  if (!progress.start_nll.empty()) {
    tensors.push_back({"start_nll",
                       DType::f64,
                       {static_cast<std::int64_t>(progress.start_nll.size())},
                       progress.start_nll.data(),
                       progress.start_nll.size() * sizeof(double)});
  }
  for (std::size_t i = 0; i < optimizer.parameters().size(); ++i) {
    const auto& state = optimizer.state()[i];
    steps.push_back(state.steps);
    if (with_parameters) {
      const Tensor<P>& value = optimizer.parameters()[i]->value();
      tensors.push_back({"p." + optimizer.parameters()[i]->name(),
                         dtype_of<P>,
                         {value.shape().begin(), value.shape().end()},
                         value.data(),
                         value.bytes()});
    }
    if (state.m.defined()) {
      const std::vector<std::int64_t> shape(state.m.shape().begin(), state.m.shape().end());
      tensors.push_back(
          {"m." + optimizer.parameters()[i]->name(), dtype_of<P>, shape, state.m.data(), state.m.bytes()});
      tensors.push_back(
          {"v." + optimizer.parameters()[i]->name(), dtype_of<P>, shape, state.v.data(), state.v.bytes()});
    }
  }
  tensors.push_back({"steps",
                     DType::i64,
                     {static_cast<std::int64_t>(steps.size())},
                     steps.data(),
                     steps.size() * sizeof(std::int64_t)});
  write_safetensors(path, tensors);
  read_back_safetensors(path, tensors);
}

/// What save_training_state wrote after optimizer step `step`. Throws IoError if the file is of another run or step.
template <class P>
RunProgress load_training_state(const std::string& path, std::int64_t step, AdamW<P>& optimizer, bool with_parameters) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  const auto entry = [&](const std::string& name) -> const TensorEntry& {
    const TensorEntry* found = file.find(name);
    check<IoError>(found != nullptr, path, ": tensor '", name, "' is missing; remove this checkpoint's folder");
    return *found;
  };
  const std::vector<std::int64_t> counters = read_as<std::int64_t>(entry("counters"));
  const std::vector<double> values = read_as<double>(entry("values"));
  const std::vector<std::int64_t> steps = read_as<std::int64_t>(entry("steps"));
  const std::vector<std::int64_t> origin = read_as<std::int64_t>(entry("origin"));
  std::array<std::int64_t, RunOrigin::kNumbers> begun{};
  check<IoError>(counters.size() == 3 && values.size() == 3 && origin.size() == begun.size() &&
                     steps.size() == optimizer.parameters().size(),
                 path, ": does not belong to this run's parameters; remove this checkpoint's folder");
  bool whole = counters[0] == step && counters[1] >= -1 && counters[1] <= step && counters[2] >= 0;
  for (const std::int64_t count : steps) {
    whole = whole && count >= 0 && count <= step;
  }
  check<IoError>(whole, path, ": its counters are not those of step ", step, "; remove this checkpoint's folder");
  for (std::size_t i = 0; i < steps.size(); ++i) {
    Parameter<P>& parameter = *optimizer.parameters()[i];
    auto& state = optimizer.state()[i];
    state.steps = steps[i];
    const auto read = [&](const std::string& name) {
      const TensorEntry& moment = entry(name);
      check<IoError>(Shape(moment.shape) == parameter.value().shape(), path, ": tensor '", name, "' is ", moment.shape,
                     ", expected ", parameter.value().shape());
      return Tensor<P>::from(read_as<P>(moment), parameter.value().shape());
    };
    if (with_parameters) {
      parameter.mutable_value() = read("p." + parameter.name());
    }
    if (steps[i] > 0) {
      state.m = read("m." + parameter.name());
      state.v = read("v." + parameter.name());
    }
  }
  std::copy(origin.begin(), origin.end(), begun.begin());
  RunProgress progress{counters[0], counters[1], values[0], values[1], values[2], counters[2], RunOrigin::from(begun)};
  if (progress.origin.validation_rows > 0) {
    progress.start_nll = read_as<double>(entry("start_nll"));
    check<IoError>(std::ssize(progress.start_nll) == progress.origin.validation_rows, path, ": tensor 'start_nll' has ",
                   progress.start_nll.size(), " rows, expected the ", progress.origin.validation_rows,
                   " held back; remove this checkpoint's folder");
  }
  return progress;
}

}  // namespace perft::cli

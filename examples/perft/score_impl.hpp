#pragma once
// `perft score` for one compute type.

#include <cmath>     // std::isfinite
#include <deque>     // values that a writer points at
#include <iostream>  // results
#include <optional>  // labels
#include <string>    // names
#include <vector>    // tensors

#include "engine.hpp"
#include "perft/data/padded.hpp"
#include "perft/io/safetensors.hpp"
#include "perft/io/safetensors_writer.hpp"
#include "perft/train/adamw.hpp"
#include "perft/train/loss.hpp"
#include "report_error.hpp"

namespace perft::cli {

/// The integer tensors of a batch file.
struct BatchFile {
  std::vector<std::int64_t> ids, mask, labels;
  std::vector<std::int64_t> ids_shape, mask_shape, labels_shape;
  bool has_labels = false;
};

BatchFile read_batch_file(const std::string& path);

/// Named F32 results, written in the order added. Refuses numbers that are not finite.
class ScoreOutput {
 public:
  template <class P>
  void add(const std::string& name, std::vector<std::int64_t> shape, const P* values, std::int64_t n) {
    std::vector<float>& stored = values_.emplace_back(static_cast<std::size_t>(n));
    vec::convert(values, stored.data(), n);
    for (const float value : stored) {
      check<NonFiniteError>(std::isfinite(value), "result '", name, "' is not finite");
    }
    tensors_.push_back({name, DType::f32, std::move(shape), stored.data(), stored.size() * sizeof(float)});
  }

  void add(const std::string& name, double value) { add(name, {1}, &value, 1); }

  template <class P>
  void add(const std::string& name, const Tensor<P>& tensor) {
    add(name, {tensor.shape().begin(), tensor.shape().end()}, tensor.span().data(), tensor.numel());
  }

  void write(const std::string& path) const { write_safetensors(path, tensors_); }

 private:
  std::deque<std::vector<float>> values_;
  std::vector<TensorToWrite> tensors_;
};

template <ComputeType C>
int score_with(const ScoreOptions& options) {
  using P = Param<C>;
  const BatchFile file = read_batch_file(options.input);
  const auto model = load_model<C>(options.model);
  const ModelConfig& config = model->config;
  std::optional<IntegerTensor> labels;
  if (file.has_labels) {
    labels = IntegerTensor{file.labels, file.labels_shape};
  }
  const PaddedBatch padded = from_padded(options.input, {file.ids, file.ids_shape}, {file.mask, file.mask_shape},
                                         labels, config.vocab_size, options.pad_rows);
  const Batch& batch = padded.batch;
  if (padded.columns > config.max_position_embeddings) {
    note(options.input + ": rows of " + std::to_string(padded.columns) + " tokens are longer than the model's " +
         std::to_string(config.max_position_embeddings));
  }
  const bool train = options.grads || options.steps > 0;
  check<IoError>(padded.has_labels || !train, options.input, ": tensor 'labels' is missing; gradients need it");
  if (!options.adapter.empty()) {
    load_adapter<C>(*model, base_facts(config), options.adapter);
  } else if (train) {
    train_everything<C>(*model);
  }

  ScoreOutput output;
  const auto bad = [&](const std::string& what) {
    fail<NonFiniteError>(options.model, ": ", what, " is not finite; the first such number appears in ",
                         model->first_non_finite(batch).value_or("the head"), "; check the weights or use --dtype f32");
  };
  {
    NoRecording pause;
    ForwardContext<C> context = model->context(batch);
    const Tensor<P> logits = model->logits(model->forward(batch, context).value());
    const std::int64_t vocabulary = config.vocab_size;
    std::vector<float> all(padded.logit_source.size() * static_cast<std::size_t>(vocabulary));
    for (std::size_t i = 0; i < padded.logit_source.size(); ++i) {
      float* row = all.data() + i * static_cast<std::size_t>(vocabulary);
      vec::convert(logits.data() + padded.logit_source[i] * vocabulary, row, vocabulary);
      for (std::int64_t v = 0; v < vocabulary; ++v) {
        if (!std::isfinite(row[v])) {
          bad("a logit");
        }
      }
    }
    output.add("logits", {file.ids_shape[0], file.ids_shape[1], vocabulary}, all.data(),
               static_cast<std::int64_t>(all.size()));
  }
  double lm = 0;
  if (padded.has_labels) {
    const double coefficient = options.aux_coef.value_or(config.router_aux_loss_coef);
    LossOptions loss_options;
    loss_options.lm_scale = 1.0 / static_cast<double>(batch.targets.size());
    loss_options.aux_weight = coefficient;
    const auto add_losses = [&](const std::string& prefix, const Losses& losses) {
      const double total = losses.lm + coefficient * (losses.aux + losses.adapter_aux);
      if (!std::isfinite(total)) {
        bad("the loss");
      }
      output.add(prefix + "lm_loss", losses.lm);
      output.add(prefix + "aux_loss", losses.aux);
      output.add(prefix + "adapter_aux_loss", losses.adapter_aux);
      output.add(prefix + "loss", total);
    };
    const std::vector<Parameter<P>*> parameters = trainable_parameters<C>(*model);
    const auto clear_gradients = [&] {
      for (Parameter<P>* parameter : parameters) {
        parameter->clear_gradient();
      }
    };
    Losses losses =
        train ? accumulate_gradients<C>(*model, batch, loss_options) : evaluate_loss<C>(*model, batch, loss_options);
    lm = losses.lm;
    add_losses("", losses);
    if (options.grads) {
      for (Parameter<P>* parameter : parameters) {
        output.add("grad." + parameter->name(), as_stored(*parameter, parameter->gradient_accumulator()));
      }
    }
    AdamW<P> optimizer(parameters);
    for (std::int64_t step = 1; step <= options.steps; ++step) {
      if (step > 1) {
        clear_gradients();
        accumulate_gradients<C>(*model, batch, loss_options);
      }
      const double norm = gradient_norm(parameters);
      output.add("step" + std::to_string(step) + ".grad_norm", norm);
      optimizer.step(options.lr, clip_factor(norm, options.clip));
      const std::string prefix = "after" + std::to_string(step) + ".";
      for (const Parameter<P>* parameter : parameters) {
        output.add(prefix + "param." + parameter->name(), as_stored(*parameter, parameter->value()));
      }
      add_losses(prefix, evaluate_loss<C>(*model, batch, loss_options));
    }
  }
  output.write(options.output);
  if (options.json) {
    OrderedJson json = {{"rows", file.ids_shape[0]}, {"columns", padded.columns}};
    if (padded.has_labels) {
      json["targets"] = batch.targets.size();
      json["lm_loss"] = lm;
    }
    std::cout << json.dump() << "\n";
  } else if (padded.has_labels) {
    std::cout << "lm_loss " << lm << " over " << batch.targets.size() << " targets\n";
  }
  return 0;
}

}  // namespace perft::cli

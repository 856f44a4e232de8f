#pragma once
// `perft score` for one compute type.

#include <algorithm>  // std::min
#include <cmath>      // std::isfinite
#include <cstdint>    // sizes
#include <memory>     // the model
#include <string>     // names
#include <vector>     // tensors

#include "advice.hpp"
#include "engine_commands.hpp"
#include "perft/models/load_model.hpp"
#include "perft/peft/adapter_io.hpp"
#include "perft/train/adamw.hpp"
#include "perft/train/loss.hpp"

namespace perft::cli {

template <ComputeType C>
class Scoring {
 public:
  using P = Param<C>;

  Scoring(const ScoreOptions& options, const ScoreInput& input)
      : options_(options), input_(input), model_(build_model<C>(input.model.config, input.model.tensors)) {
    if (input.adapter) {
      load_adapter<C>(*model_, input.adapter->spec, options.adapter);
    } else if (trains()) {
      train_everything<C>(*model_);
    }
    parameters_ = trainable_parameters<C>(*model_);
    coefficient_ = options.aux_coef.value_or(model_->config.router_aux_loss_coef);
  }

  std::optional<double> run() {
    output_ = std::make_unique<ScoreOutput>(options_.output, headers());
    const Batch& batch = input_.padded.batch;
    LossOptions loss;
    loss.lm_scale = input_.padded.has_labels ? 1.0 / static_cast<double>(batch.targets.size()) : 0.0;
    loss.aux_weight = coefficient_;
    const auto write = [this](const Tensor<C>& hidden) { write_logits(hidden); };
    const Losses losses =
        trains() ? accumulate_gradients<C>(*model_, batch, loss, write) : evaluate_loss<C>(*model_, batch, loss, write);
    if (!input_.padded.has_labels) {
      output_->commit();
      return std::nullopt;
    }
    write_losses(losses);
    for (Parameter<P>* parameter : options_.grads ? parameters_ : std::vector<Parameter<P>*>()) {
      write_tensor(as_stored(*parameter, parameter->gradient_accumulator()));
    }
    AdamW<P> optimizer(parameters_);
    for (step_ = 1; step_ <= options_.steps; ++step_) {
      if (step_ > 1) {
        for (Parameter<P>* parameter : parameters_) {
          parameter->clear_gradient();
        }
        accumulate_gradients<C>(*model_, batch, loss);
      }
      const double norm = gradient_norm(parameters_);
      write_number(norm);
      optimizer.step(options_.lr, clip_factor(norm, options_.clip));
      for (const Parameter<P>* parameter : parameters_) {
        write_tensor(as_stored(*parameter, parameter->value()));
      }
      write_losses(evaluate_loss<C>(*model_, batch, loss));
    }
    output_->commit();
    return losses.lm;
  }

 private:
  bool trains() const { return options_.grads || options_.steps > 0; }

  std::vector<TensorHeader> headers() const {
    std::vector<TensorHeader> list;
    const auto add = [&](const std::string& name, std::vector<std::int64_t> shape) {
      list.push_back({name, DType::f32, std::move(shape)});
    };
    const auto add_parameters = [&](const std::string& prefix) {
      for (const Parameter<P>* parameter : parameters_) {
        std::vector<std::int64_t> shape(parameter->value().shape().begin(), parameter->value().shape().end());
        if (parameter->stored_transposed()) {
          std::swap(shape[0], shape[1]);
        }
        add(prefix + parameter->name(), std::move(shape));
      }
    };
    const auto add_losses = [&](const std::string& prefix) {
      for (const char* name : {"lm_loss", "aux_loss", "adapter_aux_loss", "loss"}) {
        add(prefix + name, {1});
      }
    };
    add("logits", {input_.rows, input_.padded.columns, model_->config.vocab_size});
    if (input_.padded.has_labels) {
      add_losses("");
    }
    if (options_.grads) {
      add_parameters("grad.");
    }
    for (std::int64_t step = 1; step <= options_.steps; ++step) {
      add("step" + std::to_string(step) + ".grad_norm", {1});
      add_parameters("after" + std::to_string(step) + ".param.");
      add_losses("after" + std::to_string(step) + ".");
    }
    return list;
  }

  /// The head over every position, a chunk at a time: logits of a whole batch would be its largest tensor by far.
  /// Neighbours that stand for one token (padding) are computed once.
  void write_logits(const Tensor<C>& hidden) {
    const std::vector<std::int32_t>& source = input_.padded.logit_source;
    const std::int64_t width = hidden.size(1);
    const std::int64_t vocabulary = model_->config.vocab_size;
    const std::int64_t chunk = perft::cross_entropy_chunk(vocabulary, sizeof(P));
    for (std::size_t cell = 0; cell < source.size();) {
      std::vector<std::int32_t> tokens;
      std::size_t end = cell;
      for (; end < source.size(); ++end) {
        if (tokens.empty() || source[end] != tokens.back()) {
          if (std::ssize(tokens) == chunk) {
            break;
          }
          tokens.push_back(source[end]);
        }
      }
      Tensor<C> rows = Tensor<C>::empty({std::ssize(tokens), width});
      for (std::size_t i = 0; i < tokens.size(); ++i) {
        std::copy_n(hidden.data() + tokens[i] * width, width,
                    rows.mutable_data() + static_cast<std::int64_t>(i) * width);
      }
      const Tensor<P> logits = model_->logits(rows);
      for (std::int64_t row = -1; cell < end; ++cell) {
        row += row < 0 || source[cell] != tokens[static_cast<std::size_t>(row)] ? 1 : 0;
        write(logits.data() + row * vocabulary, vocabulary);
      }
    }
  }

  void write_losses(const Losses& losses) {
    write_number(losses.lm);
    write_number(losses.aux);
    write_number(losses.adapter_aux);
    write_number(losses.lm + coefficient_ * (losses.aux + losses.adapter_aux));
  }

  void write_number(double value) {
    const P number = static_cast<P>(value);
    write(&number, 1);
  }

  void write_tensor(const Tensor<P>& tensor) { write(tensor.span().data(), tensor.numel()); }

  /// The next values of the tensor that is due, in pieces.
  void write(const P* values, std::int64_t n) {
    constexpr std::int64_t kPiece = 1 << 14;
    float piece[kPiece];
    for (std::int64_t begin = 0; begin < n; begin += kPiece) {
      const std::int64_t count = std::min(kPiece, n - begin);
      vec::convert(values + begin, piece, count);
      if (!output_->write(piece, static_cast<std::size_t>(count))) {
        refuse();
      }
    }
  }

  /// The tensor that is due holds a number that is not finite.
  [[noreturn]] void refuse() {
    const std::string& name = output_->name();
    const std::string& dir = options_.adapter.empty() ? options_.model : options_.adapter;
    const bool from_gradient = name.starts_with("grad.") || name == "step1.grad_norm";
    const auto first = [&] { return model_->first_non_finite(input_.padded.batch).value_or("the head"); };
    if (step_ > 0 && !from_gradient) {
      fail<NonFiniteError>(dir, ": after step ", step_, ", ", name, " is not finite",
                           name.ends_with("loss") ? "; the first such number appears in " + first() : "",
                           "; lower --lr");
    }
    if (from_gradient) {
      fail<NonFiniteError>(dir, ": ", name, " is not finite although the loss is; ", weights_advice<C>());
    }
    fail<NonFiniteError>(options_.model, ": ", name == "logits" ? "a logit" : name,
                         " is not finite; the first such number appears in ", first(), "; ", weights_advice<C>());
  }

  const ScoreOptions& options_;
  const ScoreInput& input_;
  std::unique_ptr<CausalLm<C>> model_;
  std::vector<Parameter<P>*> parameters_;
  std::unique_ptr<ScoreOutput> output_;
  double coefficient_ = 0;
  std::int64_t step_ = 0;  // AdamW steps begun
};

template <ComputeType C>
std::optional<double> score_with(const ScoreOptions& options, const ScoreInput& input) {
  return Scoring<C>(options, input).run();
}

}  // namespace perft::cli

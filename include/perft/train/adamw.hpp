#pragma once
// AdamW and gradient-norm clipping over a list of parameters.

#include <algorithm>  // std::min, std::upper_bound
#include <cmath>      // std::sqrt, std::pow
#include <cstdint>    // steps
#include <numeric>    // std::accumulate
#include <vector>     // state

#include "perft/autograd/parameter.hpp"
#include "perft/core/parallel.hpp"
#include "perft/core/vec.hpp"

namespace perft::inline PERFT_ABI {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;
};

namespace detail {

/// The chunks of 2^14 elements that several tensors are cut into, tensor by tensor: small ones share the threads too.
class TensorChunks {
 public:
  static constexpr std::int64_t kSize = std::int64_t{1} << 14;

  void add(std::int64_t elements) { ends_.push_back(count() + (elements + kSize - 1) / kSize); }

  std::int64_t count() const { return ends_.empty() ? 0 : ends_.back(); }

  /// Calls body(tensor, chunk, begin): the chunk's number and its first element within the tensor.
  template <class Body>
  void for_each(Body&& body) const {
    parallel_for(count(), 1, [&](std::int64_t chunk, std::int64_t) {
      const auto tensor = static_cast<std::size_t>(std::upper_bound(ends_.begin(), ends_.end(), chunk) - ends_.begin());
      body(tensor, static_cast<std::size_t>(chunk), (chunk - (tensor == 0 ? 0 : ends_[tensor - 1])) * kSize);
    });
  }

 private:
  std::vector<std::int64_t> ends_;
};

/// Σ x² in double: eight sums, every eighth element each.
template <class P>
double sum_of_squares(const P* x, std::int64_t n) {
  double sums[8] = {};
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (std::int64_t lane = 0; lane < 8; ++lane) {
      const auto value = static_cast<double>(x[i + lane]);
      sums[lane] += value * value;
    }
  }
  for (; i < n; ++i) {
    sums[0] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  }
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

}  // namespace detail

/// A parameter's value, gradient and moments, and the factors of its step.
template <class P, class Device = Cpu>
struct AdamWItem {
  Tensor<P, Device>* value;
  const Tensor<P, Device>* gradient;
  Tensor<P, Device>* m;
  Tensor<P, Device>* v;
  AdamWFactors<P> factors;
};

/// AdamW's update of all items in place. A device needs this and sum_of_squares().
template <class P>
void adamw_update(const std::vector<AdamWItem<P>>& items) {
  detail::TensorChunks chunks;
  for (const AdamWItem<P>& item : items) {
    chunks.add(item.value->numel());
  }
  chunks.for_each([&](std::size_t i, std::size_t, std::int64_t begin) {
    const AdamWItem<P>& item = items[i];
    const std::int64_t n = std::min(detail::TensorChunks::kSize, item.value->numel() - begin);
    vec::adamw(item.value->mutable_span().data() + begin, item.gradient->span().data() + begin,
               item.m->mutable_data() + begin, item.v->mutable_data() + begin, item.factors, n);
  });
}

/// Σ x² over all tensors, in double, chunks of 2^14 elements in order.
template <class P>
double sum_of_squares(const std::vector<const Tensor<P>*>& tensors) {
  detail::TensorChunks chunks;
  for (const Tensor<P>* tensor : tensors) {
    chunks.add(tensor->numel());
  }
  std::vector<double> partial(static_cast<std::size_t>(chunks.count()));
  chunks.for_each([&](std::size_t i, std::size_t chunk, std::int64_t begin) {
    const std::int64_t n = std::min(detail::TensorChunks::kSize, tensors[i]->numel() - begin);
    partial[chunk] = detail::sum_of_squares(tensors[i]->span().data() + begin, n);
  });
  return std::accumulate(partial.begin(), partial.end(), 0.0);
}

/// sqrt(Σ g²) over all parameters that have a gradient.
template <class P, class Device = Cpu>
double gradient_norm(const std::vector<Parameter<P, Device>*>& parameters) {
  std::vector<const Tensor<P, Device>*> gradients;
  for (const Parameter<P, Device>* parameter : parameters) {
    if (parameter->gradient().defined()) {
      gradients.push_back(&parameter->gradient());
    }
  }
  return gradients.empty() ? 0.0 : std::sqrt(sum_of_squares(gradients));
}

/// The factor clip_grad_norm_ multiplies gradients by: min(1, limit / (norm + 1e-6)); 1 if limit is 0 (no clipping).
inline double clip_factor(double norm, double limit) {
  return limit == 0 ? 1.0 : std::min(1.0, limit / (norm + 1e-6));
}

/// p ← p·(1 − lr·decay);  m ← m + (1−β₁)(g − m);  v ← β₂v + (1−β₂)g²;  p ← p − lr/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + ε).
/// State is made on first use; a parameter without a gradient is left alone, state included.
/// Source: Loshchilov & Hutter 2019, alg. 2; torch.optim.AdamW.
template <class P, class Device = Cpu>
class AdamW {
 public:
  /// Moments of one parameter, laid out as its value is.
  struct State {
    Tensor<P, Device> m, v;
    std::int64_t steps = 0;
  };

  explicit AdamW(std::vector<Parameter<P, Device>*> parameters, AdamWOptions options = {})
      : parameters_(std::move(parameters)), options_(options), state_(parameters_.size()) {}

  /// One step with gradients multiplied by `factor` (clipping). Gradients are left as they are.
  void step(double lr, double factor = 1.0) {
    std::vector<AdamWItem<P, Device>> items;
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      if (parameters_[i]->gradient().defined()) {
        items.push_back(item(*parameters_[i], state_[i], lr, factor));
      }
    }
    if (!items.empty()) {
      adamw_update(items);
    }
  }

  const std::vector<Parameter<P, Device>*>& parameters() const { return parameters_; }

  std::vector<State>& state() { return state_; }

 private:
  AdamWItem<P, Device> item(Parameter<P, Device>& parameter, State& state, double lr, double factor) {
    if (!state.m.defined()) {
      state.m = zeros_like(parameter.value());
      state.v = zeros_like(parameter.value());
    }
    ++state.steps;
    const double bias1 = 1 - std::pow(options_.beta1, static_cast<double>(state.steps));
    const double bias2 = 1 - std::pow(options_.beta2, static_cast<double>(state.steps));
    return {&parameter.mutable_value(),
            &parameter.gradient(),
            &state.m,
            &state.v,
            {static_cast<P>(factor), static_cast<P>(1 - options_.beta1), static_cast<P>(options_.beta2),
             static_cast<P>(1 - options_.beta2), static_cast<P>(lr / bias1), static_cast<P>(std::sqrt(bias2)),
             static_cast<P>(options_.eps), static_cast<P>(1 - lr * options_.weight_decay)}};
  }

  std::vector<Parameter<P, Device>*> parameters_;
  AdamWOptions options_;
  std::vector<State> state_;
};

}  // namespace perft::inline PERFT_ABI

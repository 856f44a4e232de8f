#pragma once
// Cross-entropy fused with the language-model head, in chunks of targets: whole-batch logits never exist in training.

#include <algorithm>    // std::max, std::min
#include <cmath>        // std::log
#include <cstdint>      // ids
#include <memory>       // nodes
#include <span>         // targets
#include <string_view>  // node name
#include <vector>       // per-target losses

#include "perft/autograd/variable.hpp"
#include "perft/autograd/weight.hpp"
#include "perft/core/parallel.hpp"
#include "perft/core/vec.hpp"
#include "perft/ops/add.hpp"
#include "perft/ops/linear.hpp"
#include "perft/ops/rows.hpp"

namespace perft::inline PERFT_ABI {

/// What is scored: the hidden state of token rows[i] predicts targets[i] (a token may appear more than once).
struct ScoredTargets {
  std::vector<std::int32_t> rows;     // [n] in [0, T)
  std::vector<std::int32_t> targets;  // [n] in [0, V)
};

/// Targets per chunk: about 32 MiB of logits of `bytes` each, but at least 64 rows so that the head's weights are used
/// often enough.
inline std::int64_t cross_entropy_chunk(std::int64_t vocabulary, std::int64_t bytes) {
  return std::max<std::int64_t>(64, (std::int64_t{32} << 20) / (vocabulary * bytes));
}

namespace detail {

/// For each chunk [begin, end) of targets: logits in place become softmax(logits), then visit(begin, end,
/// probabilities, nll of the chunk).
template <ComputeType C, class Visit>
void for_each_chunk(const Tensor<C>& h, const Weight<Param<C>>& head, const ScoredTargets& scored, Visit&& visit) {
  using P = Param<C>;
  const auto n = static_cast<std::int64_t>(scored.targets.size());
  const std::int64_t vocabulary = head.rows();
  const std::int64_t chunk = cross_entropy_chunk(vocabulary, sizeof(P));
  Tensor<P> logits = Tensor<P>::empty({std::min(chunk, n), vocabulary});
  std::vector<double> nll(static_cast<std::size_t>(std::min(chunk, n)));
  for (std::int64_t begin = 0; begin < n; begin += chunk) {
    const std::int64_t end = std::min(n, begin + chunk);
    P* data = logits.mutable_data();
    gemm::Problem<C> problem{end - begin, vocabulary, h.size(1), matrix(h), head.transposed()};
    problem.a.rows = scored.rows.data() + begin;
    problem.c = {data, dtype_of<P>, vocabulary, 1, false};
    gemm::run(problem);
    parallel_for(end - begin, 1, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        P* row = data + i * vocabulary;
        const P peak = vec::max(row, vocabulary);
        const auto target = static_cast<std::size_t>(scored.targets[static_cast<std::size_t>(begin + i)]);
        const double own = static_cast<double>(row[target]) - static_cast<double>(peak);
        const P sum = vec::exp_sum(row, peak, row, vocabulary);
        nll[static_cast<std::size_t>(i)] = std::log(static_cast<double>(sum)) - own;
        vec::scale(P{1} / sum, row, vocabulary);
      }
    });
    visit(begin, end, logits, nll);
  }
}

/// probabilities − onehot(target), times scale: d(scale · Σ nll) / d logits of a chunk, in place.
template <class P>
void to_logit_gradient(std::int64_t begin, std::int64_t end, const ScoredTargets& scored, P scale, Tensor<P>& chunk) {
  const std::int64_t vocabulary = chunk.size(1);
  P* data = chunk.mutable_data();
  parallel_for(end - begin, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      P* row = data + i * vocabulary;
      row[scored.targets[static_cast<std::size_t>(begin + i)]] -= P{1};
      vec::scale(scale, row, vocabulary);
    }
  });
}

/// dh[rows[i]] += dlogits[i] · W for a chunk. Threads share out channels; targets add in order.
template <ComputeType C>
void add_hidden_gradient(std::int64_t begin, std::int64_t end, const ScoredTargets& scored,
                         const Weight<Param<C>>& head, const Tensor<Param<C>>& dlogits, Tensor<Param<C>>& dh) {
  using P = Param<C>;
  const std::int64_t width = head.cols();
  const Tensor<P> part =
      product<C, P>(end - begin, width, head.rows(), matrix(dlogits), head.operand(), Precision::kCompute);
  P* out = dh.mutable_data();
  parallel_for(width, 256, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = begin; i < end; ++i) {
      vec::axpy(P{1}, part.data() + (i - begin) * width + first,
                out + scored.rows[static_cast<std::size_t>(i)] * width + first, last - first);
    }
  });
}

}  // namespace detail

template <ComputeType C, class Device = Cpu>
struct CrossEntropyOutput {
  double loss = 0;                 // scale · Σ_i nll_i
  std::vector<double> nll;         // [n] of each target
  Tensor<Param<C>, Device> value;  // [1] the loss, where its gradient will arrive
  Tensor<Param<C>, Device> dh;     // [T, D] its gradient; undefined unless asked for
};

/// loss = scale · Σ_i −log softmax(h[rows[i]] · Wᵀ)[targets[i]]; with `need_dh` also dh, from the same logits: nothing
/// is recomputed and only one chunk of logits is alive. h [T, D] C, head W [V, D]. Throws ShapeError / ValueError on
/// widths, rows or targets out of range. Source: transformers ForCausalLMLoss (fp32 logits, mean over labels ≠ −100
/// with scale = 1/n); Hsu et al. 2024 (Liger).
template <ComputeType C>
CrossEntropyOutput<C> cross_entropy_forward(const Tensor<C>& h, const Weight<Param<C>>& head,
                                            const ScoredTargets& scored, double scale, bool need_dh) {
  using P = Param<C>;
  check<ShapeError>(h.rank() == 2 && h.contiguous() && h.size(1) == head.cols(), "cross_entropy: h is ", h.shape(),
                    ", expected contiguous [T, ", head.cols(), "]");
  check<ShapeError>(scored.rows.size() == scored.targets.size(), "cross_entropy: ", scored.rows.size(), " rows for ",
                    scored.targets.size(), " targets");
  for (std::size_t i = 0; i < scored.rows.size(); ++i) {
    check<ValueError>(
        scored.rows[i] >= 0 && scored.rows[i] < h.size(0) && scored.targets[i] >= 0 && scored.targets[i] < head.rows(),
        "cross_entropy: target ", i, " is (row ", scored.rows[i], ", id ", scored.targets[i], "), expected rows below ",
        h.size(0), " and ids below ", head.rows());
  }
  CrossEntropyOutput<C> out;
  if (need_dh) {
    out.dh = Tensor<P>::zeros(h.shape());
  }
  double total = 0;
  detail::for_each_chunk(h, head, scored,
                         [&](std::int64_t begin, std::int64_t end, Tensor<P>& chunk, const std::vector<double>& nll) {
                           for (std::int64_t i = 0; i < end - begin; ++i) {
                             total += nll[static_cast<std::size_t>(i)];
                             out.nll.push_back(nll[static_cast<std::size_t>(i)]);
                           }
                           if (need_dh) {
                             detail::to_logit_gradient(begin, end, scored, static_cast<P>(scale), chunk);
                             detail::add_hidden_gradient<C>(begin, end, scored, head, chunk, out.dh);
                           }
                         });
  out.loss = scale * total;
  out.value = Tensor<P>::full({1}, static_cast<P>(out.loss));
  return out;
}

/// Trained head: dW += and, if asked for, dh [T, D] C, from logits that are formed again; seed [1] is the gradient of
/// the loss. `trained` is the head's parameter.
template <ComputeType C>
Tensor<C> cross_entropy_backward(const Tensor<Param<C>>& seed, const Tensor<C>& h, const Weight<Param<C>>& head,
                                 Parameter<Param<C>>& trained, const ScoredTargets& scored, double scale,
                                 bool need_dh) {
  using P = Param<C>;
  const P factor = static_cast<P>(scale) * seed.data()[0];
  Tensor<P> dh = need_dh ? Tensor<P>::zeros(h.shape()) : Tensor<P>();
  detail::for_each_chunk(h, head, scored,
                         [&](std::int64_t begin, std::int64_t end, Tensor<P>& chunk, const std::vector<double>&) {
                           detail::to_logit_gradient(begin, end, scored, factor, chunk);
                           gemm::Operand hidden = detail::matrix(h);
                           hidden.rows = scored.rows.data() + begin;
                           weight_gradient<C>(trained, end - begin, detail::transposed(chunk), hidden);
                           if (need_dh) {
                             detail::add_hidden_gradient<C>(begin, end, scored, head, chunk, dh);
                           }
                         });
  return need_dh ? detail::cast<C>(dh) : Tensor<C>();
}

/// Frozen head: dh as the forward pass formed it, times the gradient of the loss (seed [1]), rounded to C.
template <ComputeType C>
Tensor<C> scaled_hidden_gradient(const Tensor<Param<C>>& seed, Tensor<Param<C>> dh) {
  const Param<C> factor = seed.data()[0];
  if (factor != Param<C>{1}) {
    vec::scale(factor, dh.mutable_data(), dh.numel());
  }
  return detail::cast<C>(dh);
}

/// Frozen head: saves dh, formed in the forward pass. Trained head: saves h and forms dh and dW from recomputed logits.
template <ComputeType C, class Device = Cpu>
class CrossEntropyNode final : public Node {
 public:
  using P = Param<C>;

  CrossEntropyNode(Edge h_edge, Edge loss_edge, Saved<C, Device> h, Tensor<P, Device> dh, const Weight<P, Device>& head,
                   ScoredTargets scored, double scale)
      : h_edge_(h_edge),
        loss_edge_(loss_edge),
        h_(std::move(h)),
        dh_(std::move(dh)),
        head_(head),
        scored_(std::move(scored)),
        scale_(scale) {}

  std::string_view name() const override { return "cross_entropy"; }

  std::size_t saved_bytes() const override {
    return h_.bytes() + dh_.bytes() + (scored_.rows.size() + scored_.targets.size()) * sizeof(std::int32_t);
  }

  void backward(Tape& tape) override {
    const Tensor<P, Device> seed = tape.take_gradient<P, Device>(loss_edge_);
    if (!seed.defined()) {
      return;
    }
    if (Parameter<P, Device>* trained = head_.trained()) {
      Tensor<C, Device> dh = cross_entropy_backward(seed, h_.get(), head_, *trained, scored_, scale_, h_edge_.needed());
      tape.add_gradient(h_edge_, std::move(dh));
    } else {
      tape.add_gradient(h_edge_, scaled_hidden_gradient<C>(seed, std::move(dh_)));
    }
  }

 private:
  Edge h_edge_;
  Edge loss_edge_;
  Saved<C, Device> h_;
  Tensor<P, Device> dh_;
  const Weight<P, Device>& head_;
  ScoredTargets scored_;
  double scale_;
};

/// Differentiable cross_entropy_forward: a scalar [1]. head must outlive the tape.
template <ComputeType C, class Device>
Variable<Param<C>, Device> cross_entropy(const Variable<C, Device>& h, const Weight<Param<C>, Device>& head,
                                         const ScoredTargets& scored, double scale, double* exact = nullptr) {
  const bool trained = head.trained() != nullptr;
  CrossEntropyOutput<C, Device> out =
      cross_entropy_forward(h.value(), head, scored, scale, h.needs_gradient() && !trained);
  if (exact != nullptr) {
    *exact = out.loss;
  }
  return differentiable(out.value, h.needs_gradient() || trained, [&](Edge loss_edge) {
    return std::make_unique<CrossEntropyNode<C, Device>>(h.edge(), loss_edge, trained ? h.saved() : Saved<C, Device>(),
                                                         out.dh, head, scored, scale);
  });
}

}  // namespace perft::inline PERFT_ABI

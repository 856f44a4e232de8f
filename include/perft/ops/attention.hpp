#pragma once
// Causal grouped-query attention over ragged rows, with an optional sliding window. Memory is linear in the row length.

#include <algorithm>    // std::max, std::min
#include <cmath>        // std::exp, std::log, std::sqrt
#include <cstdint>      // indices
#include <memory>       // nodes
#include <string_view>  // node name
#include <vector>       // scratch

#include "perft/autograd/variable.hpp"
#include "perft/core/batch.hpp"
#include "perft/core/parallel.hpp"
#include "perft/core/vec.hpp"
#include "perft/ops/rows.hpp"

namespace perft::inline PERFT_ABI {

/// Heads and mask of one attention call. Window 0: unlimited; else query i sees keys j with i − j < window.
struct AttentionShape {
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t window = 0;
};

template <ComputeType C, class Device = Cpu>
struct AttentionOutput {
  Tensor<C, Device> o;           // [T, H · d]
  Tensor<Param<C>, Device> lse;  // [T, H] log of the softmax's denominator; all backward needs to form P again
};

namespace detail {

/// Keys [first, last) that query i of a segment sees.
struct KeyRange {
  std::int64_t first, last;

  KeyRange(std::int64_t i, const Segment& segment, std::int64_t window)
      : first(window > 0 ? std::max<std::int64_t>(0, i - window + 1) : 0),
        last(std::min<std::int64_t>(i + 1, segment.keys)) {
    first = std::min(first, last);
  }
};

/// One head's rows of a segment in P: `rows` [n, d], and if asked `columns` [d, n].
template <class P, class C>
void gather_head(const Tensor<C>& x, const Segment& segment, std::int64_t head, std::int64_t d, std::int64_t n, P* rows,
                 P* columns) {
  const std::int64_t width = x.size(1);
  for (std::int64_t i = 0; i < n; ++i) {
    const C* from = x.data() + (segment.begin + i) * width + head * d;
    vec::convert(from, rows + i * d, d);
    if (columns != nullptr) {
      for (std::int64_t c = 0; c < d; ++c) {
        columns[c * n + i] = rows[i * d + c];
      }
    }
  }
}

/// Segments must ascend, cover [0, T) without gaps and have no more keys than queries: what they say is an index into
/// q, k, v, and a token outside all of them would keep whatever the output's memory held.
inline void check_segments(const std::vector<Segment>& segments, std::int64_t tokens) {
  std::int64_t next = 0;
  for (std::size_t s = 0; s < segments.size(); ++s) {
    const auto [begin, queries, keys] = segments[s];
    check<ShapeError>(begin == next && queries >= 0 && keys >= 0 && keys <= queries && queries <= tokens - next,
                      "attention: segment ", s, " is {begin ", begin, ", queries ", queries, ", keys ", keys,
                      "}, expected begin ", next, ", keys <= queries <= ", tokens - next);
    next += queries;
  }
  check<ShapeError>(next == tokens, "attention: ", segments.size(), " segments cover [0, ", next, "), expected [0, ",
                    tokens, ")");
}

}  // namespace detail

/// o[i] = Σ_j softmax_j(q_i · k_j / √d) v_j over the keys each query sees; exactly 0 for a query that sees none.
/// q [T, H·d], k, v [T, H_kv·d] C, segments covering [0, T) -> o [T, H·d] C, lse [T, H]. Query head h reads kv head
/// h / (H / H_kv). Scores, softmax and sums in Param<C>, o rounded once. FLOPs 4·H·d per (query, key) pair.
/// Throws ShapeError on shapes that do not fit and, naming the segment, on segments that do not ascend, leave a token
/// out or have more keys than queries.
/// Source: transformers sdpa attention (a fully masked row gives 0); Dao 2023 for lse.
template <ComputeType C>
AttentionOutput<C> attention_forward(const Tensor<C>& q, const Tensor<C>& k, const Tensor<C>& v,
                                     const std::vector<Segment>& segments, const AttentionShape& shape) {
  using P = Param<C>;
  const std::int64_t d = shape.head_dim;
  const std::int64_t tokens = q.size(0);
  check<ShapeError>(q.rank() == 2 && q.contiguous() && q.size(1) == shape.heads * d, "attention: q is ", q.shape(),
                    ", expected contiguous [T, ", shape.heads * d, "]");
  check<ShapeError>(
      k.contiguous() && v.contiguous() && k.shape() == Shape{tokens, shape.kv_heads * d} && v.shape() == k.shape(),
      "attention: k is ", k.shape(), " and v is ", v.shape(), ", expected contiguous [", tokens, ", ",
      shape.kv_heads * d, "]");
  check<ShapeError>(shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0, "attention: ", shape.heads,
                    " heads, expected a multiple of ", shape.kv_heads, " kv heads");
  detail::check_segments(segments, tokens);
  AttentionOutput<C> out{Tensor<C>::empty(q.shape()), Tensor<P>::empty({tokens, shape.heads})};
  C* o = out.o.mutable_data();
  P* lse = out.lse.mutable_data();
  const std::int64_t group = shape.heads / shape.kv_heads;
  const P scale = P{1} / std::sqrt(static_cast<P>(d));
  const auto tasks = static_cast<std::int64_t>(segments.size()) * shape.kv_heads;
  ThreadPool::global().run(tasks, [&](std::int64_t task) {
    const Segment& segment = segments[static_cast<std::size_t>(task / shape.kv_heads)];
    const std::int64_t kv_head = task % shape.kv_heads;
    const std::int64_t n = segment.keys;
    std::vector<P> scratch(static_cast<std::size_t>(n * d * 3 + n + 2 * d));
    P* k_rows = scratch.data();
    P* k_columns = k_rows + n * d;  // [d, n]: scores of one query become d axpys, without horizontal sums
    P* v_rows = k_columns + n * d;
    P* score = v_rows + n * d;
    P* query = score + n;
    P* result = query + d;
    detail::gather_head(k, segment, kv_head, d, n, k_rows, k_columns);
    detail::gather_head(v, segment, kv_head, d, n, v_rows, static_cast<P*>(nullptr));
    for (std::int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
      for (std::int64_t i = 0; i < segment.queries; ++i) {
        const std::int64_t t = segment.begin + i;
        const detail::KeyRange range(i, segment, shape.window);
        const std::int64_t count = range.last - range.first;
        std::fill_n(result, d, P{0});
        P denominator_log = 0;
        if (count > 0) {
          vec::convert(q.data() + t * q.size(1) + h * d, query, d);
          vec::scale(scale, query, d);
          std::fill_n(score, count, P{0});
          vec::multi_axpy(query, k_columns + range.first, n, d, count, score);
          const P peak = vec::max(score, count);
          const P sum = vec::exp_sum(score, peak, score, count);
          vec::multi_axpy(score, v_rows + range.first * d, d, count, d, result);
          vec::scale(P{1} / sum, result, d);
          denominator_log = peak + std::log(sum);
        }
        lse[t * shape.heads + h] = denominator_log;
        store_rounded(result, o + t * q.size(1) + h * d, d);
      }
    }
  });
  return out;
}

template <ComputeType C, class Device = Cpu>
struct AttentionGradients {
  Tensor<C, Device> dq, dk, dv;
};

/// With P = exp(s − lse), D = <do, o>: dS = P ⊙ (do Vᵀ − D); dq = dS K/√d, dk = dSᵀ q/√d, dv = Pᵀ do. All three are
/// computed: they share P and dS. One task owns a segment's kv head, so sums over queries and grouped heads are
/// ordered.
template <ComputeType C>
AttentionGradients<C> attention_backward(const Tensor<C>& d_o, const Tensor<C>& q, const Tensor<C>& k,
                                         const Tensor<C>& v, const AttentionOutput<C>& forward,
                                         const std::vector<Segment>& segments, const AttentionShape& shape) {
  using P = Param<C>;
  const std::int64_t d = shape.head_dim;
  const std::int64_t width = q.size(1);
  const std::int64_t kv_width = k.size(1);
  AttentionGradients<C> out{Tensor<C>::empty(q.shape()), Tensor<C>::zeros(k.shape()), Tensor<C>::zeros(v.shape())};
  C* dq = out.dq.mutable_data();
  C* dk = out.dk.mutable_data();
  C* dv = out.dv.mutable_data();
  const std::int64_t group = shape.heads / shape.kv_heads;
  const P scale = P{1} / std::sqrt(static_cast<P>(d));
  const auto tasks = static_cast<std::int64_t>(segments.size()) * shape.kv_heads;
  ThreadPool::global().run(tasks, [&](std::int64_t task) {
    const Segment& segment = segments[static_cast<std::size_t>(task / shape.kv_heads)];
    const std::int64_t kv_head = task % shape.kv_heads;
    const std::int64_t n = segment.keys;
    std::vector<P> scratch(static_cast<std::size_t>(n * d * 6 + 2 * n + 4 * d));
    P* k_rows = scratch.data();
    P* k_columns = k_rows + n * d;
    P* v_rows = k_columns + n * d;
    P* v_columns = v_rows + n * d;
    P* dk_rows = v_columns + n * d;  // zero: std::vector value-initialises
    P* dv_rows = dk_rows + n * d;
    P* probability = dv_rows + n * d;
    P* ds = probability + n;
    P* query = ds + n;
    P* do_row = query + d;
    P* o_row = do_row + d;
    P* dq_row = o_row + d;
    detail::gather_head(k, segment, kv_head, d, n, k_rows, k_columns);
    detail::gather_head(v, segment, kv_head, d, n, v_rows, v_columns);
    for (std::int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
      for (std::int64_t i = 0; i < segment.queries; ++i) {
        const std::int64_t t = segment.begin + i;
        const detail::KeyRange range(i, segment, shape.window);
        const std::int64_t count = range.last - range.first;
        std::fill_n(dq_row, d, P{0});
        if (count > 0) {
          vec::convert(q.data() + t * width + h * d, query, d);
          vec::scale(scale, query, d);
          vec::convert(d_o.data() + t * width + h * d, do_row, d);
          vec::convert(forward.o.data() + t * width + h * d, o_row, d);
          std::fill_n(probability, count, P{0});
          vec::multi_axpy(query, k_columns + range.first, n, d, count, probability);
          vec::exp_sum(probability, forward.lse.data()[t * shape.heads + h], probability, count);
          const P inner = vec::dot(do_row, o_row, d);
          std::fill_n(ds, count, -inner);
          vec::multi_axpy(do_row, v_columns + range.first, n, d, count, ds);
          vec::mul(ds, probability, ds, count);
          vec::multi_axpy(ds, k_rows + range.first * d, d, count, d, dq_row);
          vec::scale(scale, dq_row, d);
          vec::rank1_update(ds, query, dk_rows + range.first * d, d, count, d);  // query carries the 1/√d
          vec::rank1_update(probability, do_row, dv_rows + range.first * d, d, count, d);
        }
        store_rounded(dq_row, dq + t * width + h * d, d);
      }
    }
    for (std::int64_t j = 0; j < n; ++j) {
      store_rounded(dk_rows + j * d, dk + (segment.begin + j) * kv_width + kv_head * d, d);
      store_rounded(dv_rows + j * d, dv + (segment.begin + j) * kv_width + kv_head * d, d);
    }
  });
  return out;
}

/// Saves q, k and v (or their recipes), o and lse: linear in T.
template <ComputeType C, class Device = Cpu>
class AttentionNode final : public Node {
 public:
  AttentionNode(Edge q_edge, Edge k_edge, Edge v_edge, Edge o_edge, Saved<C, Device> q, Saved<C, Device> k,
                Saved<C, Device> v, AttentionOutput<C, Device> forward,
                std::shared_ptr<const std::vector<Segment>> segments, AttentionShape shape)
      : q_edge_(q_edge),
        k_edge_(k_edge),
        v_edge_(v_edge),
        o_edge_(o_edge),
        q_(std::move(q)),
        k_(std::move(k)),
        v_(std::move(v)),
        forward_(std::move(forward)),
        segments_(std::move(segments)),
        shape_(shape) {}

  std::string_view name() const override { return "attention"; }

  std::size_t saved_bytes() const override {
    return q_.bytes() + k_.bytes() + v_.bytes() + forward_.o.bytes() + forward_.lse.bytes();
  }

  void backward(Tape& tape) override {
    const Tensor<C, Device> d_o = tape.take_gradient<C, Device>(o_edge_);
    if (!d_o.defined()) {
      return;
    }
    AttentionGradients<C, Device> gradients =
        attention_backward(d_o, q_.get(), k_.get(), v_.get(), forward_, *segments_, shape_);
    tape.add_gradient(q_edge_, std::move(gradients.dq));
    tape.add_gradient(k_edge_, std::move(gradients.dk));
    tape.add_gradient(v_edge_, std::move(gradients.dv));
  }

 private:
  Edge q_edge_, k_edge_, v_edge_, o_edge_;
  Saved<C, Device> q_, k_, v_;
  AttentionOutput<C, Device> forward_;
  std::shared_ptr<const std::vector<Segment>> segments_;
  AttentionShape shape_;
};

/// Differentiable attention_forward.
template <ComputeType C, class Device>
Variable<C, Device> attention(const Variable<C, Device>& q, const Variable<C, Device>& k, const Variable<C, Device>& v,
                              std::shared_ptr<const std::vector<Segment>> segments, const AttentionShape& shape) {
  AttentionOutput<C, Device> out = attention_forward(q.value(), k.value(), v.value(), *segments, shape);
  return differentiable(out.o, q.needs_gradient() || k.needs_gradient() || v.needs_gradient(), [&](Edge o_edge) {
    return std::make_unique<AttentionNode<C, Device>>(q.edge(), k.edge(), v.edge(), o_edge, q.saved(), k.saved(),
                                                      v.saved(), out, segments, shape);
  });
}

}  // namespace perft::inline PERFT_ABI

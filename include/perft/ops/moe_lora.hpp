#pragma once
// LoRA on the matrices of every expert, as moe_experts sees it: row by row, beside the grouped GEMMs.

#include <algorithm>  // std::min, std::copy_n, std::fill_n
#include <array>      // coefficients
#include <cstdint>    // indices
#include <span>       // token lists
#include <vector>     // scratch rows

#include "perft/core/parallel.hpp"
#include "perft/core/vec.hpp"
#include "perft/ops/dropout.hpp"
#include "perft/ops/low_rank_bank.hpp"
#include "perft/ops/low_rank_reduce.hpp"
#include "perft/ops/routing_plan.hpp"
#include "perft/ops/rows.hpp"

namespace perft::inline PERFT_ABI {

namespace detail {

/// f(expert, p, scratch) for every sorted position p. A task is up to 32 positions of one expert and has its own
/// scratch, which f sizes.
template <class P, class F>
void for_each_position(const RoutingPlan& plan, F&& f) {
  struct Range {
    std::int64_t expert, begin, end;
  };

  std::vector<Range> ranges;
  for (std::int64_t e = 0; e < plan.experts(); ++e) {
    const std::int64_t end = plan.offsets[static_cast<std::size_t>(e) + 1];
    for (std::int64_t p = plan.offsets[static_cast<std::size_t>(e)]; p < end; p += 32) {
      ranges.push_back({e, p, std::min(p + 32, end)});
    }
  }
  ThreadPool::global().run(static_cast<std::int64_t>(ranges.size()), [&](std::int64_t i) {
    std::vector<P> scratch;
    const Range& range = ranges[static_cast<std::size_t>(i)];
    for (std::int64_t p = range.begin; p < range.end; ++p) {
      f(range.expert, p, scratch);
    }
  });
}

}  // namespace detail

/// One projection's bank (expert e of the bank belongs to expert e of the table) and the dropout of this forward pass.
/// A null bank adds nothing.
template <class P, class Device = Cpu>
struct ExpertLoraBranch;

template <class P>
struct ExpertLoraBranch<P, Cpu> {
  LowRankBank<P>* bank = nullptr;
  Dropout dropout;

  bool trainable() const { return bank != nullptr && bank->trainable(); }

  /// z[p, :] = A_e (x[source(p)] ⊙ mask) for every sorted position p, source(p) = rows[p], or p itself if rows is
  /// empty. The mask is keyed by the token behind p. -> [T·K, r_max], undefined without a bank.
  template <class C>
  Tensor<P> shrink(const Tensor<C>& x, const RoutingPlan& plan, std::span<const std::int32_t> rows) const {
    if (bank == nullptr) {
      return {};
    }
    dropout.check_tokens(plan.tokens_count);
    const std::int64_t rank = bank->max_rank();
    Tensor<P> z = Tensor<P>::zeros({plan.entries(), rank});
    P* out = z.mutable_data();
    detail::for_each_position<P>(plan, [&](std::int64_t e, std::int64_t p, std::vector<P>& scratch) {
      scratch.resize(static_cast<std::size_t>(2 * bank->in));
      const P* input = masked_row(x, plan, rows, e, p, 0, bank->in, scratch.data(), scratch.data() + bank->in);
      vec::multi_dot(input, (*bank)[e].a.value().data(), bank->in, (*bank)[e].rank(), bank->in, out + p * rank);
    });
    return z;
  }

  /// row[0 … count) += scale · Σ_q z[p, q] · B_e[q, first …].
  void expand(std::int64_t e, const Tensor<P>& z, std::int64_t p, std::int64_t first, std::int64_t count,
              P* row) const {
    if (bank == nullptr) {
      return;
    }
    scaled_rows(e, z.data() + p * z.size(1), (*bank)[e].b.value().data() + first, bank->out, count, row);
  }

  /// u[p, :] = B_e dy[source(p), offset …]: dy has rows of `stride` elements. -> [T·K, r_max].
  template <class Y>
  Tensor<P> shrink_gradient(const Y* dy, std::int64_t stride, const RoutingPlan& plan,
                            std::span<const std::int32_t> rows) const {
    if (bank == nullptr) {
      return {};
    }
    const std::int64_t rank = bank->max_rank();
    Tensor<P> u = Tensor<P>::zeros({plan.entries(), rank});
    P* out = u.mutable_data();
    detail::for_each_position<P>(plan, [&](std::int64_t e, std::int64_t p, std::vector<P>& scratch) {
      scratch.resize(static_cast<std::size_t>(bank->out));
      const std::int64_t source = rows.empty() ? p : rows[static_cast<std::size_t>(p)];
      const P* row = widened(dy + source * stride, scratch.data(), bank->out);
      vec::multi_dot(row, (*bank)[e].b.value().data(), bank->out, (*bank)[e].rank(), bank->out, out + p * rank);
    });
    return u;
  }

  /// row[0 … count) += mask ⊙ scale · Σ_q u[p, q] · A_e[q, first …]: the gradient with respect to the projection's
  /// input. `first` is a multiple of 4; `scratch` has 2 · count elements.
  void expand_gradient(std::int64_t e, const Tensor<P>& u, std::int64_t p, const RoutingPlan& plan, std::int64_t first,
                       std::int64_t count, P* row, P* scratch) const {
    if (bank == nullptr) {
      return;
    }
    const P* a = (*bank)[e].a.value().data() + first;
    const P* up = u.data() + p * u.size(1);
    if (!dropout.active()) {
      scaled_rows(e, up, a, bank->in, count, row);
      return;
    }
    P* path = scratch;
    P* mask = scratch + count;
    std::fill_n(path, count, P{0});
    scaled_rows(e, up, a, bank->in, count, path);
    dropout.mask_row(plan.tokens[static_cast<std::size_t>(p)], e, mask, count, first);
    vec::mul(path, mask, path, count);
    vec::add(row, path, row, count);
  }

  /// dA_e[q, :] += factor(p) · scale · u[p, q] · (x ⊙ mask), dB_e[q, :] += factor(p) · scale · z[p, q] · dy; factor(p)
  /// = factors[p] or 1.
  template <class C, class Y>
  void reduce(const RoutingPlan& plan, const Tensor<P>& z, const Tensor<P>& u, const P* factors, const Tensor<C>& x,
              std::span<const std::int32_t> x_rows, const Y* dy, std::int64_t stride,
              std::span<const std::int32_t> dy_rows) const {
    if (!trainable()) {
      return;
    }
    const auto position = [&](std::int64_t e, std::int64_t i) { return plan.offsets[static_cast<std::size_t>(e)] + i; };
    const auto count = [&](std::int64_t e) {
      return std::int64_t{plan.offsets[static_cast<std::size_t>(e) + 1] - plan.offsets[static_cast<std::size_t>(e)]};
    };
    const Tensor<P> for_a = scaled(plan, u, factors);
    const Tensor<P> for_b = scaled(plan, z, factors);
    const std::int64_t rank = bank->max_rank();
    detail::reduce_low_rank_gradient<P>(
        *bank, detail::select_a<P>, count,
        [&](std::int64_t e, std::int64_t i) { return for_a.data() + position(e, i) * rank; },
        [&](std::int64_t e, std::int64_t i, std::int64_t first, std::int64_t n, P* row, P* mask) {
          return masked_row(x, plan, x_rows, e, position(e, i), first, n, row, mask);
        });
    detail::reduce_low_rank_gradient<P>(
        *bank, detail::select_b<P>, count,
        [&](std::int64_t e, std::int64_t i) { return for_b.data() + position(e, i) * rank; },
        [&](std::int64_t e, std::int64_t i, std::int64_t first, std::int64_t n, P* row, P*) {
          const std::int64_t p = position(e, i);
          return widened(dy + (dy_rows.empty() ? p : dy_rows[static_cast<std::size_t>(p)]) * stride + first, row, n);
        });
  }

 private:
  template <class C>
  const P* masked_row(const Tensor<C>& x, const RoutingPlan& plan, std::span<const std::int32_t> rows, std::int64_t e,
                      std::int64_t p, std::int64_t first, std::int64_t n, P* row, P* mask) const {
    const std::int64_t source = rows.empty() ? p : rows[static_cast<std::size_t>(p)];
    const P* input = widened(x.data() + source * bank->in + first, row, n);
    if (!dropout.active()) {
      return input;
    }
    dropout.mask_row(plan.tokens[static_cast<std::size_t>(p)], e, mask, n, first);
    vec::mul(input, mask, row, n);
    return row;
  }

  void scaled_rows(std::int64_t e, const P* z, const P* rows, std::int64_t stride, std::int64_t count, P* out) const {
    const std::int64_t rank = (*bank)[e].rank();
    std::array<P, 64> coefficients;
    for (std::int64_t q = 0; q < rank; q += 64) {
      const std::int64_t n = std::min<std::int64_t>(64, rank - q);
      std::copy_n(z + q, n, coefficients.data());
      vec::scale(bank->scale(e), coefficients.data(), n);
      vec::multi_axpy(coefficients.data(), rows + q * stride, stride, n, count, out);
    }
  }

  Tensor<P> scaled(const RoutingPlan& plan, const Tensor<P>& values, const P* factors) const {
    Tensor<P> out = values.clone();
    const std::int64_t rank = values.size(1);
    P* data = out.mutable_data();
    detail::for_each_position<P>(plan, [&](std::int64_t e, std::int64_t p, std::vector<P>&) {
      vec::scale(bank->scale(e) * (factors != nullptr ? factors[p] : P{1}), data + p * rank, rank);
    });
    return out;
  }
};

template <class P, class Device = Cpu>
struct ExpertLora {
  ExpertLoraBranch<P, Device> gate, up, down;

  bool trainable() const { return gate.trainable() || up.trainable() || down.trainable(); }
};

/// z = A · dropout(input) of the three branches, [T·K, r_max] by sorted position.
template <class P, class Device = Cpu>
struct ExpertLoraState {
  Tensor<P, Device> gate, up, down;

  std::size_t bytes() const { return gate.bytes() + up.bytes() + down.bytes(); }
};

}  // namespace perft::inline PERFT_ABI

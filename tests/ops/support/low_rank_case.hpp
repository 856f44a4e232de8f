#pragma once
// Banks of low-rank experts and what they compute, in the scalar of the complex step.

#include <string>  // parameter names

#include "ops/support/harness.hpp"
#include "perft/ops/dropout.hpp"
#include "perft/ops/low_rank_bank.hpp"
#include "reference/linear.hpp"
#include "reference/swiglu.hpp"

namespace harness {

/// A bank with irregular entries; `seed` separates banks. Nothing is trainable.
template <class P>
perft::LowRankBank<P> make_bank(perft::DeltaForm form, std::int64_t in, std::int64_t out,
                                const std::vector<std::int64_t>& ranks, unsigned seed) {
  perft::LowRankBank<P> bank;
  bank.form = form;
  bank.in = in;
  bank.out = out;
  bank.alpha = 3.0;
  for (std::size_t e = 0; e < ranks.size(); ++e) {
    auto expert = std::make_unique<perft::LowRankExpert<P>>();
    const auto at = seed + 2 * static_cast<unsigned>(e);
    expert->a.set("a" + std::to_string(e), tensor<P>(numbers(ranks[e] * in, at), {ranks[e], in}));
    expert->b.set("b" + std::to_string(e), tensor<P>(numbers(ranks[e] * out, at + 1), {ranks[e], out}));
    bank.experts.push_back(std::move(expert));
  }
  return bank;
}

/// Makes a bank's A and B trainable or not; trainable ones start with a gradient of `fill`.
template <class P>
void train_bank(perft::LowRankBank<P>& bank, bool a, bool b, double fill) {
  for (auto& expert : bank.experts) {
    expert->a.set_trainable(a);
    expert->b.set_trainable(b);
    if (a) {
      prefill_gradient(expert->a, fill);
    }
    if (b) {
      prefill_gradient(expert->b, fill);
    }
  }
}

/// All A, then all B: what exact_gradients varies.
template <class P>
void append_bank(const perft::LowRankBank<P>& bank, std::vector<Values>& inputs) {
  for (const auto& expert : bank.experts) {
    inputs.push_back(values(expert->a.value()));
  }
  for (const auto& expert : bank.experts) {
    inputs.push_back(values(expert->b.value()));
  }
}

inline Values mask_of(const perft::Dropout& dropout, std::int64_t token, std::int64_t expert, std::int64_t n) {
  Values mask(static_cast<std::size_t>(n), 1.0);
  if (dropout.active()) {
    dropout.mask_row(token, expert, mask.data(), n);
  }
  return mask;
}

template <class S>
std::vector<S> times(const std::vector<S>& x, const Values& mask) {
  std::vector<S> out(x);
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i] *= mask[i];
  }
  return out;
}

template <class S>
std::vector<S> transposed(const std::vector<S>& m, std::int64_t rows, std::int64_t cols) {
  std::vector<S> out(m.size());
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < cols; ++j) {
      out[static_cast<std::size_t>(j * rows + i)] = m[static_cast<std::size_t>(i * cols + j)];
    }
  }
  return out;
}

/// What of a bank is not a matrix. References take this and doubles, so that they are compiled once for all C.
struct BankShape {
  perft::DeltaForm form;
  std::int64_t in, out;
  double alpha;

  template <class P>
  explicit BankShape(const perft::LowRankBank<P>& bank)
      : form(bank.form), in(bank.in), out(bank.out), alpha(bank.alpha) {}
};

/// Δ_e of one row x [in]: alpha/r · B A (x ⊙ mask), or B silu((A x) ⊙ mask). a [r, in], b [r, out].
template <class S>
std::vector<S> delta_of_row(const BankShape& bank, const std::vector<S>& x, const std::vector<S>& a,
                            const std::vector<S>& b, const perft::Dropout& dropout, std::int64_t token,
                            std::int64_t expert) {
  const auto in = static_cast<std::size_t>(bank.in);
  const auto out = static_cast<std::size_t>(bank.out);
  const auto rank = static_cast<std::int64_t>(a.size() / in);
  const auto r = static_cast<std::size_t>(rank);
  if (bank.form == perft::DeltaForm::kLora) {
    const reference::LowRank<S> term{a, transposed(b, rank, bank.out), r, bank.alpha / static_cast<double>(rank)};
    return reference::low_rank(times(x, mask_of(dropout, token, expert, bank.in)), term, in, out);
  }
  auto z = times(reference::linear(x, a, in, r), mask_of(dropout, token, expert, rank));
  for (S& value : z) {
    value = reference::silu(value);
  }
  return reference::linear(z, transposed(b, rank, bank.out), r, out);
}

/// One dropout site over `tokens` tokens of three rows, or an inactive one.
inline perft::Dropout make_dropout(double p, std::int64_t tokens, std::uint64_t site) {
  auto keys = std::make_shared<perft::TokenKeys>();
  for (std::int32_t t = 0; t < static_cast<std::int32_t>(tokens); ++t) {
    keys->row.push_back(t % 3);
    keys->column.push_back(t / 3);
  }
  return p == 0 ? perft::Dropout() : perft::Dropout(p, perft::Dropout::site_key(5, 1, 0, site), std::move(keys));
}

}  // namespace harness

#pragma once
// The routers' choice: softmax over all experts, then top-k.

#include <algorithm>  // std::stable_sort
#include <numeric>    // std::iota

#include "reference/softmax.hpp"

namespace reference {

/// What a router decided for every token: `experts` and `weights` are [T, k], the most probable first.
template <class S>
struct Routing {
  std::size_t k = 0;
  std::vector<std::size_t> experts;
  std::vector<S> weights;
};

/// Indices of the k largest probabilities, the largest first; of equal ones the lower index first.
template <class S>
std::vector<std::size_t> top_k(const std::vector<S>& p, std::size_t k) {
  std::vector<std::size_t> order(p.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return real(p[a]) > real(p[b]); });
  order.resize(k);
  return order;
}

/// Row t of x [T, n].
template <class S>
std::vector<S> row(const std::vector<S>& x, std::size_t t, std::size_t n) {
  const auto begin = x.begin() + static_cast<std::ptrdiff_t>(t * n);
  return {begin, begin + static_cast<std::ptrdiff_t>(n)};
}

/// p = softmax(logits) over all n experts, the k largest of them, divided by their sum if `renormalise` (Mixtral
/// always, OLMoE if norm_topk_prob). logits [T, n]. The choice is constant under differentiation, the weights are not.
template <class S>
Routing<S> route(const std::vector<S>& logits, std::size_t n, std::size_t k, bool renormalise) {
  Routing<S> routing{k, {}, {}};
  for (std::size_t t = 0; t < logits.size() / n; ++t) {
    const auto p = softmax(row(logits, t, n));
    const auto chosen = top_k(p, k);
    S sum(0.0);
    for (const auto e : chosen) sum += p[e];
    for (const auto e : chosen) {
      routing.experts.push_back(e);
      routing.weights.push_back(renormalise ? p[e] / sum : p[e]);
    }
  }
  return routing;
}

}  // namespace reference

#pragma once
// Token embedding.

#include <cstdint>   // token ids
#include <optional>  // the pad row

#include "reference/scalar.hpp"

namespace reference {

/// y[t] = table[ids[t]]. table [V, D] → y [T, D]. The row `padding_idx` is read like any other but carries no
/// derivative, as torch.nn.Embedding(padding_idx=…) has it.
template <class S>
std::vector<S> embedding(const std::vector<S>& table, const std::vector<std::int64_t>& ids, std::size_t d,
                         std::optional<std::int64_t> padding_idx = {}) {
  std::vector<S> y;
  for (const auto id : ids) {
    for (std::size_t c = 0; c < d; ++c) {
      const S value = table.at(static_cast<std::size_t>(id) * d + c);
      y.push_back(id == padding_idx ? detach(value) : value);
    }
  }
  return y;
}

}  // namespace reference

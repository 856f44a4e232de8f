#pragma once
// Rotary position embedding, Hugging Face's rotate-half form.

#include <cmath>  // std::pow, std::sin, std::cos

#include "reference/scalar.hpp"

namespace reference {

/// Entry c of a head (c < d/2) is paired with entry c + d/2 (not with its neighbour) and turned by the angle
/// position · theta^(−2c/d): y_c = x_c cos − x_{c+d/2} sin, y_{c+d/2} = x_{c+d/2} cos + x_c sin.
/// x [T, heads·d], positions [T] → y as x.
template <class S>
std::vector<S> rope(const std::vector<S>& x, const std::vector<double>& positions, std::size_t heads, std::size_t d,
                    double theta) {
  std::vector<S> y(x.size());
  for (std::size_t t = 0; t < positions.size(); ++t) {
    for (std::size_t h = 0; h < heads; ++h) {
      const std::size_t at = (t * heads + h) * d;
      for (std::size_t c = 0; c < d / 2; ++c) {
        const double angle = positions[t] * std::pow(theta, -2.0 * static_cast<double>(c) / static_cast<double>(d));
        const S low = x[at + c], high = x[at + c + d / 2];
        y[at + c] = low * std::cos(angle) - high * std::sin(angle);
        y[at + c + d / 2] = high * std::cos(angle) + low * std::sin(angle);
      }
    }
  }
  return y;
}

}  // namespace reference

#pragma once
// The numeric comparison every test uses, and tolerances derived from norms and machine epsilons.

#include <algorithm>         // std::max
#include <bit>               // std::bit_cast
#include <cmath>             // std::isfinite
#include <concepts>          // element concept
#include <cstddef>           // std::size_t
#include <cstdint>           // bit patterns
#include <initializer_list>  // expected values written in place
#include <limits>            // machine epsilons
#include <ostream>           // Catch2 prints results through <<
#include <ranges>            // contiguous ranges
#include <span>              // views
#include <sstream>           // messages
#include <string>            // messages

#include "perft/core/dtype.hpp"

namespace support {

template <class T>
concept Comparable = std::same_as<T, double> || std::same_as<T, float> || std::same_as<T, perft::bf16>;

template <class R>
concept ComparableRange = std::ranges::contiguous_range<R> && std::ranges::sized_range<R> &&
    Comparable<std::remove_cv_t<std::ranges::range_value_t<R>>>;

/// How far an actual entry may be from the expected one: |a − e| ≤ abs + rel_to_max · max|expected|. Both default to 0,
/// i.e. equal values. Only the expected side sets the scale, so a wild actual entry cannot excuse itself.
struct Tolerance {
  double abs = 0.0;
  double rel_to_max = 0.0;
  bool allow_empty = false;  ///< two empty ranges agree; without it they are a failure (a test that compares nothing)
};

/// Whether two ranges agree, and if not why: `CHECK(close(actual, expected, {.abs = 1e-6}))`.
struct CloseResult {
  bool ok = false;
  std::string message;
  std::size_t worst_index = 0;
  double worst_difference = 0.0;

  explicit operator bool() const { return ok; }
};

inline std::ostream& operator<<(std::ostream& out, const CloseResult& result) {
  return out << result.message;
}

namespace detail {

template <Comparable T>
double widen(T value) {
  if constexpr (std::same_as<T, perft::bf16>) {
    return static_cast<double>(static_cast<float>(value));
  } else {
    return static_cast<double>(value);
  }
}

template <class... Pieces>
CloseResult refuse(const Pieces&... pieces) {
  std::ostringstream text;
  text.precision(17);
  (text << ... << pieces);
  return {.ok = false, .message = text.str(), .worst_index = 0, .worst_difference = 0.0};
}

template <Comparable A, Comparable E>
CloseResult close_spans(std::span<const A> actual, std::span<const E> expected, Tolerance tolerance) {
  // Written so that a NaN tolerance is refused too.
  if (!(tolerance.abs >= 0.0 && tolerance.rel_to_max >= 0.0 && std::isfinite(tolerance.abs + tolerance.rel_to_max))) {
    return refuse("the tolerance is not a finite number >= 0: abs ", tolerance.abs, ", rel_to_max ",
                  tolerance.rel_to_max);
  }
  if (actual.size() != expected.size()) {
    return refuse("actual has ", actual.size(), " entries, expected has ", expected.size());
  }
  if (actual.empty()) {
    auto result = refuse("both sides are empty");
    result.ok = tolerance.allow_empty;
    return result;
  }
  double largest = 0.0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double a = widen(actual[i]), e = widen(expected[i]);
    if (!std::isfinite(a) || !std::isfinite(e)) {
      auto result = refuse("not finite at [", i, "]: actual ", a, ", expected ", e);
      result.worst_index = i;
      return result;
    }
    largest = std::max(largest, std::abs(e));
  }
  CloseResult result;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double difference = std::abs(widen(actual[i]) - widen(expected[i]));
    if (difference > result.worst_difference) {
      result.worst_index = i;
      result.worst_difference = difference;
    }
  }
  const double allowed = tolerance.abs + tolerance.rel_to_max * largest;
  const std::size_t worst = result.worst_index;
  std::ostringstream text;
  text.precision(17);
  text << "worst at [" << worst << "] of " << actual.size() << ": actual " << widen(actual[worst]) << ", expected "
       << widen(expected[worst]);
  text.precision(3);
  text << ", difference " << result.worst_difference << " = " << (largest > 0.0 ? result.worst_difference / largest : 0)
       << " of the largest expected entry " << largest << ", allowed " << allowed;
  result.message = text.str();
  result.ok = result.worst_difference <= allowed;
  return result;
}

}  // namespace detail

/// Compares two ranges of double, float or bf16 entry by entry. Fails on a NaN or infinity on either side (before
/// anything else is looked at), on different lengths, on two empty ranges unless allow_empty, and on a senseless
/// tolerance. The message gives the worst index, both values and what was allowed.
template <ComparableRange A, ComparableRange E>
CloseResult close(const A& actual, const E& expected, Tolerance tolerance) {
  using TA = std::remove_cv_t<std::ranges::range_value_t<A>>;
  using TE = std::remove_cv_t<std::ranges::range_value_t<E>>;
  return detail::close_spans<TA, TE>({std::ranges::data(actual), std::ranges::size(actual)},
                                     {std::ranges::data(expected), std::ranges::size(expected)}, tolerance);
}

/// Expected values written in place: `close(y, {1.0, 2.0}, {.abs = 1e-12})`.
template <ComparableRange A>
CloseResult close(const A& actual, std::initializer_list<double> expected, Tolerance tolerance) {
  return close(actual, std::span<const double>(expected.begin(), expected.size()), tolerance);
}

/// Single values.
template <Comparable A, Comparable E>
CloseResult close(A actual, E expected, Tolerance tolerance) {
  return detail::close_spans<A, E>({&actual, 1}, {&expected, 1}, tolerance);
}

/// Number of representable values between a and b: 0 if equal (and for +0 and −0), 1 for neighbours; the largest
/// uint64 if either is NaN.
template <Comparable T>
std::uint64_t ulp_distance(T a, T b) {
  const auto position = [](T value) -> std::int64_t {  // monotone in the value, symmetric about zero
    if constexpr (std::same_as<T, double>) {
      const auto bits = std::bit_cast<std::uint64_t>(value);
      const auto magnitude = static_cast<std::int64_t>(bits & 0x7fffffffffffffffULL);
      return bits >> 63 ? -magnitude : magnitude;
    } else if constexpr (std::same_as<T, float>) {
      const auto bits = std::bit_cast<std::uint32_t>(value);
      const auto magnitude = static_cast<std::int64_t>(bits & 0x7fffffffU);
      return bits >> 31 ? -magnitude : magnitude;
    } else {
      const auto magnitude = static_cast<std::int64_t>(value.bits & 0x7fffU);
      return value.bits >> 15 ? -magnitude : magnitude;
    }
  };
  if (std::isnan(detail::widen(a)) || std::isnan(detail::widen(b))) return std::numeric_limits<std::uint64_t>::max();
  const std::int64_t pa = position(a), pb = position(b);
  // The difference of two int64 in [−2^63 + 1, 2^63 − 1] needs unsigned arithmetic.
  return pa > pb ? static_cast<std::uint64_t>(pa) - static_cast<std::uint64_t>(pb)
                 : static_cast<std::uint64_t>(pb) - static_cast<std::uint64_t>(pa);
}

/// Distance from 1 to the next larger value of T: 2^-52, 2^-23, 2^-7.
template <Comparable T>
constexpr double epsilon() {
  if constexpr (std::same_as<T, double>) return std::numeric_limits<double>::epsilon();
  if constexpr (std::same_as<T, float>) return static_cast<double>(std::numeric_limits<float>::epsilon());
  return 0x1p-7;
}

/// Euclidean norm, in double.
template <ComparableRange R>
double norm(const R& values) {
  double sum = 0.0;
  for (const auto& value : values) sum += detail::widen(value) * detail::widen(value);
  return std::sqrt(sum);
}

/// Certain bound on the error of a dot product of length k, summed in any order with unit roundoff eps / 2, with its
/// result rounded once more: |fl(x·y) − x·y| ≤ γ_{k+1} |x|·|y| ≤ c · eps · ‖x‖ ‖y‖ with c = (k + 1) / 2 up to the
/// γ denominator (Higham, Accuracy and Stability of Numerical Algorithms, §3.1). For a gradient or a chain, pass
/// the norms of what is multiplied last and add up.
inline double tolerance_for_dot(std::size_t k, double norm_x, double norm_y, double eps) {
  const double nu = (static_cast<double>(k) + 1.0) * eps / 2.0;
  return nu / (1.0 - std::min(nu, 0.5)) * norm_x * norm_y;
}

/// What the error of such a dot product is in practice: roundings are close to independent, so it grows with √k
/// (Higham & Mary 2019, a probabilistic bound with λ = 6 standard deviations). Tight enough to see a wrong term at
/// k = 2048, where the certain bound no longer is.
inline double typical_tolerance_for_dot(std::size_t k, double norm_x, double norm_y, double eps) {
  return 6.0 * std::sqrt(static_cast<double>(k) + 1.0) * eps / 2.0 * norm_x * norm_y;
}

}  // namespace support

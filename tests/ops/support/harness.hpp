#pragma once
// What every op test needs: irregular numbers, tensors of them, exact gradients, frozen storage, bits, threads, error
// texts.

#include <catch2/catch.hpp>  // CHECK in helpers
#include <cmath>             // std::frexp, std::ldexp
#include <complex>           // the complex step
#include <cstddef>           // std::byte
#include <cstdint>           // fixed-width integers
#include <cstring>           // std::memcpy
#include <memory>            // owners of frozen bytes
#include <set>               // names
#include <span>              // views
#include <stdexcept>         // what the hook throws
#include <string>            // error texts
#include <string_view>       // names
#include <typeinfo>          // exact exception types
#include <utility>           // std::move
#include <vector>            // values

#include "perft/autograd/variable.hpp"
#include "perft/autograd/weight.hpp"
#include "perft/core/parallel.hpp"
#include "perft/core/tensor.hpp"
#include "perft/ops/weight_gradient.hpp"
#include "support/close.hpp"
#include "support/gradcheck.hpp"

namespace harness {

using Values = std::vector<double>;
using Complexes = std::vector<std::complex<double>>;

/// n irregular numbers in (−scale, scale), the same on every machine. Shares no code with perft's generators.
inline Values numbers(std::int64_t n, unsigned seed, double scale = 1.0) {
  Values v;
  std::uint64_t state = seed * 0x9E3779B97F4A7C15ULL + 0x2545F4914F6CDD1DULL;
  for (std::int64_t i = 0; i < n; ++i) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    v.push_back(scale * (static_cast<double>(state >> 11) * 0x1p-52 - 1.0));
  }
  return v;
}

/// A tensor of the nearest T.
template <class T>
perft::Tensor<T> tensor(const Values& v, const perft::Shape& shape) {
  auto t = perft::Tensor<T>::empty(shape);
  REQUIRE(static_cast<std::int64_t>(v.size()) == shape.numel());
  for (std::size_t i = 0; i < v.size(); ++i) {
    t.mutable_data()[i] = static_cast<T>(v[i]);
  }
  return t;
}

template <class T>
Values values(const perft::Tensor<T>& t) {
  Values v;
  for (const T& entry : t.span()) {
    v.push_back(static_cast<double>(entry));
  }
  return v;
}

inline perft::Tensor<std::int32_t> int_tensor(const std::vector<std::int32_t>& v, const perft::Shape& shape) {
  return perft::Tensor<std::int32_t>::from(v, shape);
}

/// How far a result in C may be from the double reference at the same inputs, relative to the largest entry. double:
/// 1e-12. Else roundings of size eps / 2 accumulate like a random walk over `terms` summands of about that entry's
/// size, taken at 6 standard deviations (Higham & Mary 2019; support/close.hpp), and bf16 adds `bf16_roundings`
/// roundings of a value on the way, each at most 2^-8 of it.
template <class C>
support::Tolerance tolerance(double terms, double bf16_roundings) {
  if constexpr (std::same_as<C, double>) {
    return {.rel_to_max = 1e-12, .allow_empty = true};
  } else {
    const double accumulated = 6.0 * std::sqrt(terms + 1.0) * support::epsilon<float>() / 2.0;
    const double rounded = std::same_as<C, perft::bf16> ? bf16_roundings * support::epsilon<perft::bf16>() / 2.0 : 0.0;
    return {.rel_to_max = accumulated + rounded, .allow_empty = true};
  }
}

/// Gradients of <dy, f(inputs)> with respect to every input, by the complex step. f takes and returns complex vectors.
template <class F>
std::vector<Values> exact_gradients(F f, const std::vector<Values>& inputs, const Values& dy) {
  std::vector<Complexes> z;
  for (const Values& input : inputs) {
    z.emplace_back(input.begin(), input.end());
  }
  std::vector<Values> gradients;
  for (std::size_t i = 0; i < z.size(); ++i) {
    Values gradient;
    for (std::complex<double>& entry : z[i]) {
      const std::complex<double> before = entry;
      entry += std::complex<double>(0.0, support::kComplexStep);
      const Complexes y = f(z);
      entry = before;
      REQUIRE(y.size() == dy.size());
      double sum = 0.0;
      for (std::size_t j = 0; j < y.size(); ++j) {
        sum += y[j].imag() * dy[j];
      }
      gradient.push_back(sum / support::kComplexStep);
    }
    gradients.push_back(std::move(gradient));
  }
  return gradients;
}

/// A leaf and the edge its gradient is taken from after backward (when the variable itself is stale).
template <class T>
struct Leaf {
  perft::Variable<T> variable;
  perft::Edge edge;

  Leaf(perft::Tape& tape, perft::Tensor<T> value)
      : variable(perft::leaf(tape, std::move(value))), edge(variable.edge()) {}
};

/// Fills a parameter's gradient with `value` before a backward pass, which must add to it.
template <class P>
void prefill_gradient(perft::Parameter<P>& parameter, double value) {
  for (P& entry : parameter.gradient_accumulator().mutable_span()) {
    entry = static_cast<P>(value);
  }
}

/// What a pre-filled gradient became, minus what it was filled with.
template <class P>
Values added_gradient(const perft::Parameter<P>& parameter, double value) {
  Values v = values(parameter.gradient());
  for (double& entry : v) {
    entry -= value;
  }
  return v;
}

/// The 16 bits of the f16 nearest to a number of moderate size, and that f16's value.
struct Half {
  std::uint16_t bits = 0;
  double value = 0;

  explicit Half(double x) {
    int exponent = 0;
    const double fraction = std::frexp(std::abs(x), &exponent);  // |x| = fraction · 2^exponent, fraction in [1/2, 1)
    const bool subnormal = x == 0 || exponent < -13;
    const double unit = std::ldexp(1.0, subnormal ? -24 : exponent - 11);
    const double steps = std::nearbyint(subnormal ? std::abs(x) / unit : std::ldexp(fraction, 11));
    value = std::copysign(steps * unit, x);
    const auto mantissa = static_cast<unsigned>(steps);
    // A carry out of the mantissa runs into the exponent, as it should.
    const unsigned magnitude = subnormal ? mantissa : static_cast<unsigned>((exponent + 14) << 10) + (mantissa - 1024U);
    bits = static_cast<std::uint16_t>((std::signbit(x) ? 0x8000U : 0U) | magnitude);
  }
};

/// A frozen weight and the numbers its storage holds.
template <class P>
struct Frozen {
  perft::Weight<P> weight;
  Values values;
};

/// v stored as `dtype`, starting one byte past an aligned address: safetensors aligns nothing.
template <class P>
Frozen<P> frozen(std::string name, const Values& v, perft::DType dtype, std::int64_t rows, std::int64_t cols) {
  auto bytes = std::make_shared<std::vector<std::byte>>(v.size() * perft::dtype_size(dtype) + 1);
  std::byte* at = bytes->data() + 1;
  Frozen<P> out;
  const auto append = [&](auto stored, double value) {
    std::memcpy(at, &stored, sizeof stored);
    at += sizeof stored;
    out.values.push_back(value);
  };
  for (const double x : v) {
    if (dtype == perft::DType::f64) {
      append(x, x);
    } else if (dtype == perft::DType::f32) {
      append(static_cast<float>(x), static_cast<double>(static_cast<float>(x)));
    } else if (dtype == perft::DType::f16) {
      append(Half(x).bits, Half(x).value);
    } else {
      const perft::bf16 stored(x);
      append(stored.bits, static_cast<double>(static_cast<float>(stored)));
    }
  }
  const void* data = bytes->data() + 1;
  out.weight = perft::Weight<P>(perft::FrozenMatrix<>(std::move(name), data, dtype, rows, cols, bytes));
  return out;
}

/// The values as gemm multiplies them in compute type C: rounded to bf16 for C = bf16.
template <class C>
Values as_operand(const Values& v) {
  return values(tensor<C>(v, {static_cast<std::int64_t>(v.size())}));
}

/// While in scope, forming the gradient of a matrix of any other name throws.
class OnlyTrained {
 public:
  explicit OnlyTrained(std::set<std::string, std::less<>> names) {
    allowed() = std::move(names);
    perft::weight_gradient_hook = [](std::string_view name) {
      if (!allowed().contains(name)) {
        throw std::logic_error("the gradient of frozen '" + std::string(name) + "' was formed");
      }
    };
  }

  ~OnlyTrained() { perft::weight_gradient_hook = nullptr; }

  OnlyTrained(const OnlyTrained&) = delete;
  OnlyTrained& operator=(const OnlyTrained&) = delete;

 private:
  static std::set<std::string, std::less<>>& allowed() {
    static std::set<std::string, std::less<>> names;
    return names;
  }
};

/// The bytes of any number of tensors, to compare runs bit by bit.
class Bits {
 public:
  template <class T>
  Bits& add(const perft::Tensor<T>& t) {
    const auto bytes = std::as_bytes(t.span());
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return *this;
  }

  bool operator==(const Bits&) const = default;

  std::size_t size() const { return bytes_.size(); }

 private:
  std::vector<std::byte> bytes_;
};

inline std::ostream& operator<<(std::ostream& out, const Bits& bits) {
  return out << bits.size() << " bytes";
}

/// Resizes the global pool while in scope.
class Threads {
 public:
  explicit Threads(int threads) : before_(perft::ThreadPool::global().threads()) {
    perft::ThreadPool::global().set_threads(threads);
  }

  ~Threads() { perft::ThreadPool::global().set_threads(before_); }

  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

/// run() -> Bits must give the same for pools of 1, 2 and 3 threads.
template <class Run>
void check_same_bits_for_any_threads(Run run) {
  const Bits one = [&] {
    Threads threads(1);
    return run();
  }();
  REQUIRE(one.size() > 0);
  for (const int count : {2, 3}) {
    Threads threads(count);
    CHECK(run() == one);
  }
}

/// The text of the exception f throws, which must be exactly an E.
template <class E, class F>
std::string error_text(F&& f) {
  try {
    f();
  } catch (const std::exception& error) {
    return typeid(error) == typeid(E) ? error.what() : std::string("another type: ") + error.what();
  }
  return "nothing was thrown";
}

}  // namespace harness

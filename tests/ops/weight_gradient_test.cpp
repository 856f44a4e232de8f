#include "perft/ops/weight_gradient.hpp"

#include <catch2/catch.hpp>  // test cases

#include "ops/support/harness.hpp"

using namespace harness;
using perft::Parameter;
using perft::ValueError;

namespace {

template <class P>
void add_gradient(Parameter<P>& w, const perft::Tensor<P>& dy, const perft::Tensor<P>& x) {
  constexpr auto type = perft::dtype_of<P>;
  perft::weight_gradient<P>(w, dy.size(0), {dy.data(), type, 1, dy.size(1)}, {x.data(), type, x.size(1), 1});
}

}  // namespace

TEST_CASE("weight_gradient: adds dyᵀ x; no token adds nothing but the zeros") {
  Parameter<double> w("w", tensor<double>({0, 0, 0, 0, 0, 0}, {2, 3}));
  w.set_trainable(true);
  add_gradient(w, perft::Tensor<double>::zeros({0, 2}), perft::Tensor<double>::zeros({0, 3}));
  REQUIRE(w.gradient().defined());
  CHECK(values(w.gradient()) == Values(6, 0.0));
  const auto dy = tensor<double>({1, 2, 3, 4}, {2, 2});
  const auto x = tensor<double>({1, 0, 1, 0, 1, 1}, {2, 3});
  add_gradient(w, dy, x);
  CHECK(values(w.gradient()) == Values{1, 3, 4, 2, 4, 6});
  add_gradient(w, dy, x);
  CHECK(values(w.gradient()) == Values{2, 6, 8, 4, 8, 12});
}

TEST_CASE("weight_gradient: a frozen parameter is refused, and the hook is asked before anything is formed") {
  Parameter<float> w("q_proj", tensor<float>({0, 0}, {1, 2}));
  const auto dy = tensor<float>({1}, {1, 1});
  const auto x = tensor<float>({1, 2}, {1, 2});
  CHECK(error_text<ValueError>([&] { add_gradient(w, dy, x); }) ==
        "parameter 'q_proj' is frozen: it has no gradient to add into");
  w.set_trainable(true);
  {
    const OnlyTrained nothing({});
    CHECK(error_text<std::logic_error>([&] { add_gradient(w, dy, x); }) ==
          "the gradient of frozen 'q_proj' was formed");
    CHECK_FALSE(w.gradient().defined());
  }
  add_gradient(w, dy, x);
  CHECK(values(w.gradient()) == Values{1, 2});
}

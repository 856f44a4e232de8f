#include "perft/ops/dropout.hpp"

#include <catch2/catch.hpp>  // test cases

#include "ops/support/harness.hpp"

using namespace harness;
using perft::bf16;
using perft::Dropout;
using perft::Param;
using perft::PhiloxKey;
using perft::Recording;
using perft::ShapeError;
using perft::Tape;
using perft::Tensor;
using perft::TokenKeys;
using perft::ValueError;
using support::close;

namespace {

std::shared_ptr<const TokenKeys> keys(std::vector<std::int32_t> row, std::vector<std::int32_t> column) {
  return std::make_shared<const TokenKeys>(TokenKeys{std::move(row), std::move(column)});
}

/// What core/vec.hpp says a mask is, one channel at a time.
double mask_entry(PhiloxKey key, std::int32_t row, std::int32_t column, std::int64_t expert, std::int64_t channel,
                  double p) {
  const auto words = perft::philox({static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(column),
                                    static_cast<std::uint32_t>(expert), static_cast<std::uint32_t>(channel / 4)},
                                   key);
  return words[static_cast<std::size_t>(channel % 4)] < static_cast<std::uint32_t>(std::floor(p * 0x1p32))
             ? 0.0
             : 1.0 / (1.0 - p);
}

}  // namespace

TEMPLATE_TEST_CASE("dropout: value and gradient are x and dy times the mask of the whole batch's place", "", double,
                   float, bf16) {
  using C = TestType;
  const std::vector<std::int32_t> rows{0, 0, 3, -1, 2}, columns{0, 1, 7, 0, 2};
  const PhiloxKey key = Dropout::site_key(42, 3, 1, 5);
  for (const std::int64_t width : {0, 1, 7, 37}) {
    for (const double p : {0.25, 0.9}) {
      for (const std::int64_t expert : {0, 6}) {
        const auto x = tensor<C>(numbers(5 * width, 1), {5, width});
        const auto dy = tensor<C>(numbers(5 * width, 2), {5, width});
        const Dropout site(p, key, keys(rows, columns));
        Tape tape;
        Recording recording(tape);
        const Leaf<C> input(tape, x);
        const auto y = perft::dropout(input.variable, site, expert);
        const auto masked = [&](const Tensor<C>& v) {
          Values out = values(v);
          for (std::size_t i = 0; i < out.size(); ++i) {
            const auto t = i / static_cast<std::size_t>(width);
            out[i] *= mask_entry(key, rows[t], columns[t], expert, static_cast<std::int64_t>(i) % width, p);
          }
          return out;
        };
        CHECK(close(values(y.value()), masked(x), tolerance<C>(1, 1)));
        CHECK(tape.saved_bytes() == 0);
        CHECK(tape.node(0).name() == "dropout");
        tape.add_gradient(y.edge(), dy);
        tape.backward();
        CHECK(close(values(tape.take_gradient<C>(input.edge)), masked(dy), tolerance<C>(1, 1)));
      }
    }
  }
}

TEST_CASE("dropout: an inactive site gives x itself and records nothing") {
  Tape tape;
  Recording recording(tape);
  const Leaf<float> input(tape, tensor<float>(numbers(6, 1), {2, 3}));
  for (const Dropout& site : {Dropout(), Dropout(0.0, {}, keys({0, 0}, {0, 1}))}) {
    CHECK(perft::dropout(input.variable, site).value().data() == input.variable.value().data());
  }
  CHECK(tape.size() == 0);
}

TEST_CASE("dropout: a row's mask does not depend on the micro-batch it is in, nor on the order of rows") {
  const PhiloxKey key = Dropout::site_key(1, 1, 1, 1);
  const auto one = Tensor<float>::full({4, 50}, 1.0F);
  const auto whole = perft::dropout_forward(one, Dropout(0.5, key, keys({0, 0, 1, 1}, {0, 1, 0, 1})));
  const auto swapped = perft::dropout_forward(one, Dropout(0.5, key, keys({1, 1, 0, 0}, {0, 1, 0, 1})));
  CHECK(Bits().add(whole.slice(0, 0, 2)) == Bits().add(swapped.slice(0, 2, 4)));
  CHECK(Bits().add(whole.slice(0, 2, 4)) == Bits().add(swapped.slice(0, 0, 2)));
  const auto micro = perft::dropout_forward(one.slice(0, 0, 2), Dropout(0.5, key, keys({1, 1}, {0, 1})));
  CHECK(Bits().add(micro) == Bits().add(whole.slice(0, 2, 4)));
  CHECK_FALSE(Bits().add(whole.slice(0, 0, 1)) == Bits().add(whole.slice(0, 1, 2)));
  CHECK_FALSE(Bits().add(whole.slice(0, 0, 1)) == Bits().add(whole.slice(0, 2, 3)));
}

TEST_CASE("dropout: every field of a site's key matters, and swapped fields are another site") {
  const auto key = [](std::uint64_t seed, std::uint64_t step, std::uint64_t layer, std::uint64_t site) {
    const PhiloxKey k = Dropout::site_key(seed, step, layer, site);
    return std::pair(k.lo, k.hi);
  };
  const std::set<std::pair<std::uint32_t, std::uint32_t>> seen{key(1, 2, 3, 4), key(2, 2, 3, 4), key(1, 3, 3, 4),
                                                               key(1, 2, 4, 4), key(1, 2, 3, 5), key(1, 3, 2, 4),
                                                               key(1, 2, 4, 3), key(2, 1, 3, 4), key(0, 0, 0, 0)};
  CHECK(seen.size() == 9);
}

TEST_CASE("dropout: drops the given share and keeps the mean") {
  // 40 000 numbers: the share's standard deviation is √(p (1 − p) / n) < 0.0025; 5 of them are allowed.
  const auto one = Tensor<double>::full({40, 1000}, 1.0);
  std::vector<std::int32_t> row(40), column(40);
  for (std::int32_t t = 0; t < 40; ++t) {
    row[static_cast<std::size_t>(t)] = t / 8;
    column[static_cast<std::size_t>(t)] = t % 8;
  }
  const auto y = values(perft::dropout_forward(one, Dropout(0.25, Dropout::site_key(7, 0, 0, 0), keys(row, column))));
  const auto dropped = static_cast<double>(std::count(y.begin(), y.end(), 0.0)) / 40000.0;
  CHECK(std::abs(dropped - 0.25) < 5 * 0.0022);
  CHECK(*std::max_element(y.begin(), y.end()) == 4.0 / 3.0);
}

TEST_CASE("dropout: the same bits for 1, 2 and 3 threads") {
  const std::int64_t tokens = 200, width = 300;
  std::vector<std::int32_t> row(200, 3), column(200);
  for (std::int32_t t = 0; t < 200; ++t) {
    column[static_cast<std::size_t>(t)] = t;
  }
  const auto x = tensor<float>(numbers(tokens * width, 1), {tokens, width});
  const Dropout site(0.1, Dropout::site_key(1, 2, 3, 4), keys(row, column));
  check_same_bits_for_any_threads([&] { return Bits().add(perft::dropout_forward(x, site, 2)); });
}

TEST_CASE("dropout: error texts") {
  CHECK(error_text<ValueError>([] { Dropout(1.0, {}, nullptr); }) == "dropout: probability 1, expected [0, 1)");
  CHECK(error_text<ValueError>([] { Dropout(-0.5, {}, nullptr); }) == "dropout: probability -0.5, expected [0, 1)");
  CHECK(error_text<ValueError>([] { Dropout(std::nan(""), {}, nullptr); }) ==
        "dropout: probability nan, expected [0, 1)");
  const Dropout site(0.5, {}, keys({0, 0}, {0, 1}));
  CHECK(error_text<ShapeError>([&] { perft::dropout_forward(Tensor<float>::zeros({6}), site); }) ==
        "dropout: x is [6], expected a contiguous [T, D]");
  CHECK(error_text<ShapeError>([&] {
          perft::dropout_forward(Tensor<float>::zeros({3, 2}).transpose(0, 1), site);
        }) == "dropout: x is [2, 3], expected a contiguous [T, D]");
  CHECK(error_text<ShapeError>([&] {
          perft::dropout_forward(Tensor<float>::zeros({3, 2}), site);
        }) == "dropout: keys of 2 tokens, expected 3");
  CHECK(error_text<ShapeError>([] {
          perft::dropout_forward(Tensor<float>::zeros({3, 2}), Dropout(0.5, {}, nullptr));
        }) == "dropout: keys of 0 tokens, expected 3");
  CHECK(error_text<ShapeError>([] {
          Dropout(0.5, {}, keys({0, 0}, {0}));
        }) == "dropout: keys of 2 rows and 1 columns, expected one of each per token");
}

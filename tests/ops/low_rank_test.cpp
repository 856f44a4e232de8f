#include "perft/ops/low_rank.hpp"

#include <catch2/catch.hpp>  // test cases

#include "ops/support/low_rank_case.hpp"

using namespace harness;
using perft::bf16;
using perft::DeltaForm;
using perft::Dropout;
using perft::LowRankBank;
using perft::Param;
using perft::Recording;
using perft::ShapeError;
using perft::Tape;
using perft::Tensor;
using perft::Variable;
using support::close;
using Ints = std::vector<std::int32_t>;

namespace {

/// How tokens reach experts. Without ids every token takes every expert; without weights each counts 1.
struct Plan {
  const char* name;
  std::vector<std::int64_t> ranks;
  std::int64_t top_k;  // 0: no ids
  bool weighted;

  std::int64_t slots() const { return top_k == 0 ? static_cast<std::int64_t>(ranks.size()) : top_k; }

  Tensor<std::int32_t> ids(std::int64_t tokens) const {
    if (top_k == 0) {
      return {};
    }
    Ints ids;  // the last expert stays idle
    const auto chosen = static_cast<std::int32_t>(ranks.size()) - 1;
    for (std::int32_t t = 0; t < static_cast<std::int32_t>(tokens); ++t) {
      for (std::int32_t s = 0; s < static_cast<std::int32_t>(top_k); ++s) {
        ids.push_back((t * t + s) % chosen);
      }
    }
    return int_tensor(ids, {tokens, top_k});
  }
};

const std::vector<Plan> kPlans{{"S", {4}, 0, false},
                               {"D, ragged", {3, 1, 4}, 0, false},
                               {"D, weighted", {2, 3}, 0, true},
                               {"R, ragged", {3, 1, 4, 2, 5}, 2, true},
                               {"E", {2, 2, 2, 2}, 3, true},
                               {"routed, unweighted", {1, 5, 2}, 1, false}};

/// inputs: x, weights (maybe empty), every A, every B. ids empty: slot s is expert s.
template <class S>
std::vector<S> low_rank_reference(const std::vector<std::vector<S>>& in, const BankShape& bank, std::size_t slots,
                                  const Ints& ids, const Dropout& dropout) {
  const auto width = static_cast<std::size_t>(bank.in);
  const std::size_t tokens = in[0].size() / width;
  const std::size_t experts = (in.size() - 2) / 2;
  const auto out = static_cast<std::size_t>(bank.out);
  std::vector<S> y(tokens * out, S(0.0));
  for (std::size_t t = 0; t < tokens; ++t) {
    const std::vector<S> x(in[0].begin() + static_cast<std::ptrdiff_t>(t * width),
                           in[0].begin() + static_cast<std::ptrdiff_t>((t + 1) * width));
    for (std::size_t s = 0; s < slots; ++s) {
      const std::size_t e = ids.empty() ? s : static_cast<std::size_t>(ids[t * slots + s]);
      const auto delta = delta_of_row(bank, x, in[2 + e], in[2 + experts + e], dropout, static_cast<std::int64_t>(t),
                                      static_cast<std::int64_t>(e));
      const S weight = in[1].empty() ? S(1.0) : in[1][t * slots + s];
      for (std::size_t c = 0; c < out; ++c) {
        y[t * out + c] += weight * delta[c];
      }
    }
  }
  return y;
}

template <class C>
void check_low_rank(const Plan& plan, DeltaForm form, double p, std::int64_t tokens, std::int64_t in,
                    std::int64_t out) {
  using P = Param<C>;
  CAPTURE(plan.name, form == DeltaForm::kLora, p, tokens, in, out);
  auto bank = make_bank<P>(form, in, out, plan.ranks, 10);
  train_bank(bank, true, true, 0.25);
  const Dropout dropout = make_dropout(p, tokens, 7);
  const auto x = tensor<C>(numbers(tokens * in, 1), {tokens, in});
  const auto dy = tensor<P>(numbers(tokens * out, 2), {tokens, out});
  const auto ids = plan.ids(tokens);
  const Tensor<P> weights =
      plan.weighted ? tensor<P>(numbers(tokens * plan.slots(), 3), {tokens, plan.slots()}) : Tensor<P>();
  Tape tape;
  Recording recording(tape);
  const Leaf<C> input(tape, x);
  Variable<P> weight_variable(weights);
  perft::Edge weight_edge;
  if (plan.weighted) {
    weight_variable = perft::leaf(tape, weights);
    weight_edge = weight_variable.edge();
  }
  const auto y = perft::low_rank(input.variable, ids, weight_variable, bank, dropout);

  std::vector<Values> inputs{values(x), plan.weighted ? values(weights) : Values{}};
  append_bank(bank, inputs);
  const Ints chosen = ids.defined() ? Ints(ids.span().begin(), ids.span().end()) : Ints();
  const auto reference = [&](const auto& in_values) {
    return low_rank_reference(in_values, BankShape(bank), static_cast<std::size_t>(plan.slots()), chosen, dropout);
  };
  const auto terms = static_cast<double>(in + 8 * plan.slots());
  // Summands are below about 1 and may cancel: what is lost is relative to them.
  const auto sum_of = [](double n, support::Tolerance allowed) {
    allowed.abs = tolerance<P>(n, 0).rel_to_max;
    return allowed;
  };
  CHECK(close(values(y.value()), reference(inputs), sum_of(terms, tolerance<P>(terms, 0))));

  const std::int64_t rank = *std::max_element(plan.ranks.begin(), plan.ranks.end());
  std::size_t kept = x.bytes() + static_cast<std::size_t>(tokens * plan.slots() * rank) * sizeof(P);
  kept +=
      static_cast<std::size_t>(tokens * plan.slots()) * ((plan.top_k > 0 ? 4 : 0) + (plan.weighted ? sizeof(P) : 0));
  CHECK(tape.saved_bytes() == kept);
  CHECK(tape.node(0).name() == "low_rank");

  tape.add_gradient(y.edge(), dy);
  tape.backward();
  const auto expected = exact_gradients(reference, inputs, values(dy));
  const auto walk = static_cast<double>(out + in + 8 * plan.slots());
  CHECK(close(values(tape.take_gradient<C>(input.edge)), expected[0], sum_of(walk, tolerance<C>(walk, 1))));
  if (plan.weighted) {
    CHECK(close(values(tape.take_gradient<P>(weight_edge)), expected[1], sum_of(walk, tolerance<P>(walk, 0))));
  }
  auto for_bank = tolerance<P>(static_cast<double>(tokens) + walk, 0);
  for_bank.abs = std::same_as<C, double> ? 1e-14 : support::epsilon<float>();  // 0.25 is added and taken away again
  for (std::size_t e = 0; e < bank.experts.size(); ++e) {
    CAPTURE(e);
    CHECK(close(added_gradient(bank.experts[e]->a, 0.25), expected[2 + e], for_bank));
    CHECK(close(added_gradient(bank.experts[e]->b, 0.25), expected[2 + bank.experts.size() + e], for_bank));
  }
}

}  // namespace

TEMPLATE_TEST_CASE("low_rank: value and gradients through the tape are those of the reference", "", double, float,
                   bf16) {
  for (const Plan& plan : kPlans) {
    for (const DeltaForm form : {DeltaForm::kLora, DeltaForm::kParallel}) {
      for (const double p : {0.0, 0.4}) {
        check_low_rank<TestType>(plan, form, p, 5, 7, 5);
        check_low_rank<TestType>(plan, form, p, 0, 7, 5);
        check_low_rank<TestType>(plan, form, p, 1, 1, 1);
      }
    }
  }
  check_low_rank<TestType>(kPlans[3], DeltaForm::kLora, 0.3, 67, 3, 2);  // 64 entries of an expert are one chunk
  check_low_rank<TestType>(kPlans[0], DeltaForm::kLora, 0.3, 67, 3, 2);
  check_low_rank<TestType>(kPlans[0], DeltaForm::kParallel, 0.3, 131, 2, 3);
  check_low_rank<TestType>(kPlans[1], DeltaForm::kLora, 0.1, 3, 37, 19);
}

namespace {

/// One call of which x, weights, A and B are wanted as the bits of `wanted` say, against `expected` of all.
void check_subset(DeltaForm form, double p, unsigned wanted) {
  const std::int64_t tokens = 4;
  const auto ids = kPlans[3].ids(tokens);
  const auto x = tensor<double>(numbers(tokens * 3, 1), {tokens, 3});
  const auto weights = tensor<double>(numbers(tokens * 2, 2), {tokens, 2});
  const auto dy = tensor<double>(numbers(tokens * 2, 3), {tokens, 2});
  const Dropout dropout = make_dropout(p, tokens, 7);
  auto all = make_bank<double>(form, 3, 2, kPlans[3].ranks, 10);
  train_bank(all, true, true, 0.0);
  const auto z = perft::low_rank_forward(x, {ids, weights}, all, dropout).z;
  const auto expected = perft::low_rank_backward(dy, x, {ids, weights}, all, z, dropout, true, true);
  CAPTURE(form == DeltaForm::kLora, p, wanted);
  const bool need_x = (wanted & 1U) != 0, need_w = (wanted & 2U) != 0, a = (wanted & 4U) != 0, b = (wanted & 8U) != 0;
  auto bank = make_bank<double>(form, 3, 2, kPlans[3].ranks, 10);
  train_bank(bank, a, b, 0.0);
  Tape tape;
  Recording recording(tape);
  const Leaf<double> x_leaf(tape, x), w_leaf(tape, weights);
  const auto y = perft::low_rank(need_x ? x_leaf.variable : Variable<double>(x), ids,
                                 need_w ? w_leaf.variable : Variable<double>(weights), bank, dropout);
  CHECK(tape.size() == (wanted == 0 ? 0 : 1));
  if (wanted == 0) {
    CHECK_FALSE(y.needs_gradient());
    return;
  }
  tape.add_gradient(y.edge(), dy);
  tape.backward();
  const auto dx = tape.take_gradient<double>(x_leaf.edge), dw = tape.take_gradient<double>(w_leaf.edge);
  CHECK(dx.defined() == need_x);
  CHECK(dw.defined() == need_w);
  CHECK((!need_x || values(dx) == values(expected.dx)));
  CHECK((!need_w || values(dw) == values(expected.dweights)));
  for (std::size_t e = 0; e < bank.experts.size(); ++e) {
    CHECK(bank.experts[e]->a.gradient().defined() == a);  // zeros, not nothing, for the idle expert
    CHECK(bank.experts[e]->b.gradient().defined() == b);
    CHECK((!a || values(bank.experts[e]->a.gradient()) == values(all.experts[e]->a.gradient())));
    CHECK((!b || values(bank.experts[e]->b.gradient()) == values(all.experts[e]->b.gradient())));
  }
}

}  // namespace

TEST_CASE("low_rank: every subset of x, weights, A and B that wants a gradient gets it, and nothing else") {
  for (const DeltaForm form : {DeltaForm::kLora, DeltaForm::kParallel}) {
    for (const double p : {0.0, 0.4}) {
      for (unsigned wanted = 0; wanted < 16; ++wanted) {
        check_subset(form, p, wanted);
      }
    }
  }
}

TEST_CASE("low_rank: B = 0 adds exactly nothing") {
  auto bank = make_bank<float>(DeltaForm::kLora, 7, 5, {3, 2}, 1);
  for (auto& expert : bank.experts) {
    std::ranges::fill(expert->b.mutable_value().mutable_span(), 0.0F);
  }
  const auto x = tensor<float>(numbers(3 * 7, 1, 100.0), {3, 7});
  CHECK(values(perft::low_rank_forward(x, {}, bank, Dropout()).y) == Values(15, 0.0));
}

TEST_CASE("low_rank: the scale is alpha over each expert's own rank, and 1 in the parallel form") {
  auto bank = make_bank<double>(DeltaForm::kLora, 1, 1, {1, 4}, 1);
  CHECK(bank.scale(0) == 3.0);
  CHECK(bank.scale(1) == 0.75);
  CHECK(bank.max_rank() == 4);
  CHECK_FALSE(bank.trainable());
  bank[1].b.set_trainable(true);
  CHECK(bank.trainable());
  bank.form = DeltaForm::kParallel;
  CHECK(bank.scale(1) == 1.0);
}

TEST_CASE("low_rank: the same bits for 1, 2 and 3 threads, for a row alone, and for rows in another order") {
  const std::int64_t tokens = 150, in = 61, out = 43;
  const Plan& plan = kPlans[3];
  const auto x = tensor<float>(numbers(tokens * in, 1), {tokens, in});
  const auto dy = tensor<float>(numbers(tokens * out, 2), {tokens, out});
  const auto weights = tensor<float>(numbers(tokens * 2, 3), {tokens, 2});
  const auto ids = plan.ids(tokens);
  const Dropout dropout = make_dropout(0.2, tokens, 3);
  for (const DeltaForm form : {DeltaForm::kLora, DeltaForm::kParallel}) {
    auto bank = make_bank<float>(form, in, out, plan.ranks, 10);
    check_same_bits_for_any_threads([&] {
      train_bank(bank, true, true, 0.0);
      Tape tape;
      Recording recording(tape);
      const Leaf<float> x_leaf(tape, x), w_leaf(tape, weights);
      const auto y = perft::low_rank(x_leaf.variable, ids, w_leaf.variable, bank, dropout);
      tape.add_gradient(y.edge(), dy);
      tape.backward();
      Bits bits;
      bits.add(y.value()).add(tape.take_gradient<float>(x_leaf.edge)).add(tape.take_gradient<float>(w_leaf.edge));
      for (const auto& expert : bank.experts) {
        bits.add(expert->a.gradient()).add(expert->b.gradient());
      }
      return bits;
    });
    const auto batch = perft::low_rank_forward(x, {ids, weights}, bank, dropout);
    const auto batch_dx = perft::low_rank_backward(dy, x, {ids, weights}, bank, batch.z, dropout, true, false).dx;
    for (const std::int64_t t : {0, 77, 149}) {
      // The same token in a micro-batch of its own: its place in the whole batch stays its dropout key.
      auto key = std::make_shared<perft::TokenKeys>();
      key->row = {static_cast<std::int32_t>(t % 3)};
      key->column = {static_cast<std::int32_t>(t / 3)};
      const Dropout own(0.2, Dropout::site_key(5, 1, 0, 3), key);
      const auto row = [&](const auto& v) { return v.slice(0, t, t + 1); };
      const auto alone = perft::low_rank_forward(row(x), {row(ids), row(weights)}, bank, own);
      CHECK(Bits().add(alone.y) == Bits().add(row(batch.y)));
      const auto dx =
          perft::low_rank_backward(row(dy), row(x), {row(ids), row(weights)}, bank, alone.z, own, true, false).dx;
      CHECK(Bits().add(dx) == Bits().add(row(batch_dx)));
    }
  }
}

TEST_CASE("low_rank: error texts") {
  const auto bank = make_bank<float>(DeltaForm::kLora, 3, 2, {1, 1}, 1);
  const auto text = [&](const Tensor<float>& x, const perft::LowRankPlan<float>& plan) {
    return error_text<ShapeError>([&] { perft::low_rank_forward(x, plan, bank, Dropout()); });
  };
  const auto zeros = [](const perft::Shape& shape) { return Tensor<float>::zeros(shape); };
  CHECK(text(zeros({4, 2}), {}) == "low_rank: x is [4, 2], expected contiguous [T, 3]");
  CHECK(text(zeros({3}), {}) == "low_rank: x is [3], expected contiguous [T, 3]");
  CHECK(text(zeros({3, 4}).transpose(0, 1), {}) == "low_rank: x is [4, 3], expected contiguous [T, 3]");
  CHECK(text(zeros({4, 3}), {int_tensor({0, 1}, {2, 1}), {}}) == "low_rank: ids are [2, 1], expected [4, K]");
  CHECK(text(zeros({2, 3}), {int_tensor({0, 1}, {2, 1}), zeros({2, 2})}) ==
        "low_rank: weights are [2, 2], expected [2, 1]");
  CHECK(text(zeros({2, 3}), {{}, zeros({2, 1})}) == "low_rank: weights are [2, 1], expected [2, 2]");
  for (const std::int32_t id : {-1, 2}) {
    const perft::LowRankPlan<float> plan{int_tensor({0, 1, id, 1}, {2, 2}), {}};
    CHECK(error_text<perft::ValueError>([&] {
            perft::low_rank_forward(zeros({2, 3}), plan, bank, Dropout());
          }) == "low_rank: token 1 chose expert " + std::to_string(id) + ", expected [0, 2)");
  }
}

#include "perft/ops/attention.hpp"

#include <catch2/catch.hpp>  // test cases

#include "ops/support/harness.hpp"
#include "reference/attention.hpp"

using namespace harness;
using perft::AttentionShape;
using perft::bf16;
using perft::Param;
using perft::Recording;
using perft::Segment;
using perft::ShapeError;
using perft::Tape;
using perft::Tensor;
using support::close;
using Segments = std::vector<Segment>;

namespace {

/// The reference is written for one row; a segment is a row whose first `keys` columns have mask 1.
template <class S>
std::vector<S> ragged_reference(const std::vector<S>& q, const std::vector<S>& k, const std::vector<S>& v,
                                const Segments& segments, const AttentionShape& shape) {
  const auto part = [](const std::vector<S>& x, const Segment& s, std::int64_t width) {
    return std::vector<S>(x.begin() + s.begin * width, x.begin() + (s.begin + s.queries) * width);
  };
  std::vector<S> out;
  for (const Segment& s : segments) {
    std::vector<std::int64_t> mask(static_cast<std::size_t>(s.queries), 0);
    std::fill_n(mask.begin(), s.keys, 1);
    const auto o =
        reference::attention(part(q, s, shape.heads * shape.head_dim), part(k, s, shape.kv_heads * shape.head_dim),
                             part(v, s, shape.kv_heads * shape.head_dim), mask, static_cast<std::size_t>(shape.heads),
                             static_cast<std::size_t>(shape.kv_heads), static_cast<std::size_t>(shape.head_dim),
                             static_cast<std::size_t>(shape.window));
    out.insert(out.end(), o.begin(), o.end());
  }
  return out;
}

std::int64_t tokens_of(const Segments& segments) {
  return segments.empty() ? 0 : segments.back().begin + segments.back().queries;
}

template <class C>
struct Inputs {
  Tensor<C> q, k, v, d_o;

  Inputs(const Segments& segments, const AttentionShape& shape) {
    const std::int64_t tokens = tokens_of(segments);
    const std::int64_t width = shape.heads * shape.head_dim;
    const std::int64_t kv_width = shape.kv_heads * shape.head_dim;
    q = tensor<C>(numbers(tokens * width, 1, 2.0), {tokens, width});
    k = tensor<C>(numbers(tokens * kv_width, 2, 2.0), {tokens, kv_width});
    v = tensor<C>(numbers(tokens * kv_width, 3), {tokens, kv_width});
    d_o = tensor<C>(numbers(tokens * width, 4), {tokens, width});
  }
};

/// An ordinary row, a single token, right padding (queries > keys), a padding token that sees nothing, another row.
const Segments kRagged{{0, 5, 5}, {5, 1, 1}, {6, 7, 4}, {13, 1, 0}, {14, 6, 6}};

template <class C>
void check_attention(const Segments& segments, const AttentionShape& shape) {
  CAPTURE(segments.size(), shape.heads, shape.kv_heads, shape.head_dim, shape.window);
  const Inputs<C> in(segments, shape);
  Tape tape;
  Recording recording(tape);
  const Leaf<C> q(tape, in.q), k(tape, in.k), v(tape, in.v);
  const auto shared = std::make_shared<const Segments>(segments);
  const auto o = perft::attention(q.variable, k.variable, v.variable, shared, shape);
  const auto d = static_cast<double>(shape.head_dim);
  CHECK(close(values(o.value()), ragged_reference(values(in.q), values(in.k), values(in.v), segments, shape),
              tolerance<C>(4 * d, 1)));
  const std::size_t lse_bytes = static_cast<std::size_t>(tokens_of(segments) * shape.heads) * sizeof(Param<C>);
  CHECK(tape.saved_bytes() == 2 * in.q.bytes() + 2 * in.k.bytes() + lse_bytes);
  CHECK(tape.node(0).name() == "attention");
  tape.add_gradient(o.edge(), in.d_o);
  tape.backward();
  const auto expected = exact_gradients(
      [&](const std::vector<Complexes>& z) { return ragged_reference(z[0], z[1], z[2], segments, shape); },
      {values(in.q), values(in.k), values(in.v)}, values(in.d_o));
  auto allowed = tolerance<C>(8 * d, 1);
  CHECK(close(values(tape.take_gradient<C>(v.edge)), expected[2], allowed));
  // A score's gradient is <do, v> − <do, o>, which cancel where one key has all the weight (and o is kept rounded):
  // what is lost is relative to the terms, times an entry of k or q, which are below 2.
  allowed.abs = 2 * allowed.rel_to_max;
  CHECK(close(values(tape.take_gradient<C>(q.edge)), expected[0], allowed));
  CHECK(close(values(tape.take_gradient<C>(k.edge)), expected[1], allowed));
}

}  // namespace

TEMPLATE_TEST_CASE("attention: value and gradients through the tape are those of the reference", "", double, float,
                   bf16) {
  for (const AttentionShape& shape : std::vector<AttentionShape>{
           {1, 1, 1, 0}, {2, 2, 3, 0}, {4, 2, 5, 0}, {4, 1, 4, 2}, {2, 1, 17, 3}, {2, 2, 2, 1}, {2, 1, 3, 100}}) {
    check_attention<TestType>(kRagged, shape);
  }
  check_attention<TestType>({}, {2, 1, 3, 0});
  check_attention<TestType>({{0, 1, 1}}, {2, 1, 3, 0});
  check_attention<TestType>({{0, 37, 37}}, {1, 1, 4, 5});
}

TEST_CASE("attention: a query that sees nothing gives exactly 0 and gets no gradient") {
  const AttentionShape shape{2, 1, 3, 2};
  const Segments segments{{0, 1, 0}, {1, 6, 2}};  // window 2, keys 2: queries 3, 4, 5 of the second see nothing
  const Inputs<float> in(segments, shape);
  const auto out = perft::attention_forward(in.q, in.k, in.v, segments, shape);
  const auto gradients = perft::attention_backward(in.d_o, in.q, in.k, in.v, out, segments, shape);
  for (const std::int64_t t : {0, 4, 5, 6}) {
    CHECK(values(out.o.slice(0, t, t + 1)) == Values(6, 0.0));
    CHECK(values(out.lse.slice(0, t, t + 1)) == Values(2, 0.0));
    CHECK(values(gradients.dq.slice(0, t, t + 1)) == Values(6, 0.0));
  }
  for (const std::int64_t t : {0, 3, 4, 5, 6}) {  // not keys
    CHECK(values(gradients.dk.slice(0, t, t + 1)) == Values(3, 0.0));
    CHECK(values(gradients.dv.slice(0, t, t + 1)) == Values(3, 0.0));
  }
}

TEST_CASE("attention: scores of thousands neither overflow nor become NaN") {
  const AttentionShape shape{1, 1, 2, 0};
  const Segments segments{{0, 2, 2}};
  const auto q = tensor<float>({100, 100, 100, 100}, {2, 2});
  const auto k = tensor<float>({-100, -100, 100, 100}, {2, 2});
  const auto v = tensor<float>({1, 2, 3, 4}, {2, 2});
  const auto out = perft::attention_forward(q, k, v, segments, shape);
  CHECK(values(out.o) == Values{1, 2, 3, 4});
  const auto gradients = perft::attention_backward(v, q, k, v, out, segments, shape);
  CHECK(values(gradients.dq) == Values{0, 0, 0, 0});
  CHECK(values(gradients.dv) == Values{1, 2, 3, 4});
}

TEST_CASE("attention: frozen q, k, v record nothing; each alone gets its gradient") {
  const AttentionShape shape{2, 1, 3, 0};
  const Segments segments{{0, 4, 4}};
  const Inputs<double> in(segments, shape);
  const auto shared = std::make_shared<const Segments>(segments);
  const auto all = perft::attention_backward(
      in.d_o, in.q, in.k, in.v, perft::attention_forward(in.q, in.k, in.v, segments, shape), segments, shape);
  for (int wanted = 0; wanted < 8; ++wanted) {
    Tape tape;
    Recording recording(tape);
    perft::Variable<double> q(in.q), k(in.k), v(in.v);
    perft::Edge q_edge, k_edge, v_edge;
    const auto make = [&](bool leaf, perft::Variable<double>& variable, perft::Edge& edge) {
      if (leaf) {
        variable = perft::leaf(tape, variable.value());
        edge = variable.edge();
      }
    };
    make((wanted & 1) != 0, q, q_edge);
    make((wanted & 2) != 0, k, k_edge);
    make((wanted & 4) != 0, v, v_edge);
    const auto o = perft::attention(q, k, v, shared, shape);
    CHECK(tape.size() == (wanted == 0 ? 0 : 1));
    if (wanted == 0) {
      continue;
    }
    tape.add_gradient(o.edge(), in.d_o);
    tape.backward();
    const auto check = [&](bool leaf, perft::Edge edge, const Tensor<double>& expected) {
      const auto gradient = tape.take_gradient<double>(edge);
      CHECK(gradient.defined() == leaf);
      CHECK((!leaf || values(gradient) == values(expected)));
    };
    check((wanted & 1) != 0, q_edge, all.dq);
    check((wanted & 2) != 0, k_edge, all.dk);
    check((wanted & 4) != 0, v_edge, all.dv);
  }
}

TEST_CASE("attention: recipes that form q and k again replace them, and give the same gradients") {
  const AttentionShape shape{4, 2, 5, 3};
  const Inputs<bf16> in(kRagged, shape);
  const auto segments = std::make_shared<const Segments>(kRagged);

  const auto run = [&](bool with_recipes) {
    Tape tape;
    Recording recording(tape);
    const Leaf<bf16> q(tape, in.q), k(tape, in.k), v(tape, in.v);
    const auto again = [&](const perft::Variable<bf16>& x, const Tensor<bf16>& value) {
      return with_recipes ? x.formed_by(perft::make_recipe<bf16, perft::Cpu>([&value] { return value.clone(); })) : x;
    };
    const auto o = perft::attention(again(q.variable, in.q), again(k.variable, in.k), v.variable, segments, shape);
    const std::size_t kept = in.v.bytes() + in.q.bytes() + static_cast<std::size_t>(20 * 4) * sizeof(float);
    CHECK(tape.saved_bytes() == kept + (with_recipes ? 0 : in.q.bytes() + in.k.bytes()));
    tape.add_gradient(o.edge(), in.d_o);
    tape.backward();
    return Bits()
        .add(o.value())
        .add(tape.take_gradient<bf16>(q.edge))
        .add(tape.take_gradient<bf16>(k.edge))
        .add(tape.take_gradient<bf16>(v.edge));
  };
  CHECK(run(true) == run(false));
}

TEST_CASE("attention: the same bits for 1, 2 and 3 threads, and for a segment alone") {
  const AttentionShape shape{4, 2, 19, 7};
  const Segments segments{{0, 23, 23}, {23, 9, 5}, {32, 31, 31}, {63, 1, 0}, {64, 17, 17}};
  const Inputs<float> in(segments, shape);
  const auto run = [&] {
    const auto out = perft::attention_forward(in.q, in.k, in.v, segments, shape);
    const auto g = perft::attention_backward(in.d_o, in.q, in.k, in.v, out, segments, shape);
    return Bits().add(out.o).add(out.lse).add(g.dq).add(g.dk).add(g.dv);
  };
  check_same_bits_for_any_threads(run);
  const auto out = perft::attention_forward(in.q, in.k, in.v, segments, shape);
  const auto g = perft::attention_backward(in.d_o, in.q, in.k, in.v, out, segments, shape);
  for (const Segment& s : segments) {
    const auto rows = [&](const Tensor<float>& x) { return x.slice(0, s.begin, s.begin + s.queries); };
    const Segments alone{{0, s.queries, s.keys}};
    const auto o = perft::attention_forward(rows(in.q), rows(in.k), rows(in.v), alone, shape);
    const auto b = perft::attention_backward(rows(in.d_o), rows(in.q), rows(in.k), rows(in.v), o, alone, shape);
    CHECK(Bits().add(o.o).add(o.lse).add(b.dq).add(b.dk).add(b.dv) ==
          Bits().add(rows(out.o)).add(rows(out.lse)).add(rows(g.dq)).add(rows(g.dk)).add(rows(g.dv)));
  }
}

TEST_CASE("attention: error texts") {
  const auto text = [](const Tensor<float>& q, const Tensor<float>& k, const Tensor<float>& v,
                       const AttentionShape& shape) {
    return error_text<ShapeError>([&] { perft::attention_forward(q, k, v, Segments{{0, 2, 2}}, shape); });
  };
  const auto zeros = [](const perft::Shape& shape) { return Tensor<float>::zeros(shape); };
  CHECK(text(zeros({2, 5}), zeros({2, 3}), zeros({2, 3}), {2, 1, 3, 0}) ==
        "attention: q is [2, 5], expected contiguous [T, 6]");
  CHECK(text(zeros({6, 2}).transpose(0, 1), zeros({2, 3}), zeros({2, 3}), {2, 1, 3, 0}) ==
        "attention: q is [2, 6], expected contiguous [T, 6]");
  CHECK(text(zeros({2, 6}), zeros({2, 6}), zeros({2, 3}), {2, 1, 3, 0}) ==
        "attention: k is [2, 6] and v is [2, 3], expected contiguous [2, 3]");
  CHECK(text(zeros({2, 6}), zeros({2, 3}), zeros({3, 3}), {2, 1, 3, 0}) ==
        "attention: k is [2, 3] and v is [3, 3], expected contiguous [2, 3]");
  CHECK(text(zeros({2, 6}), zeros({3, 2}).transpose(0, 1), zeros({2, 3}), {2, 1, 3, 0}) ==
        "attention: k is [2, 3] and v is [2, 3], expected contiguous [2, 3]");
  CHECK(text(zeros({2, 9}), zeros({2, 6}), zeros({2, 6}), {3, 2, 3, 0}) ==
        "attention: 3 heads, expected a multiple of 2 kv heads");
  CHECK(text(zeros({2, 9}), zeros({2, 0}), zeros({2, 0}), {3, 0, 3, 0}) ==
        "attention: 3 heads, expected a multiple of 0 kv heads");
}

TEST_CASE("attention: segments that do not ascend, leave a token out or have too many keys are refused") {
  const auto q = Tensor<float>::zeros({5, 4});
  const auto text = [&](const Segments& segments) {
    return error_text<ShapeError>([&] { perft::attention_forward(q, q, q, segments, {2, 2, 2, 0}); });
  };
  CHECK(text({{0, 5, 9}}) ==
        "attention: segment 0 is {begin 0, queries 5, keys 9}, expected begin 0, keys <= queries <= 5");
  CHECK(text({{0, 2, 2}, {3, 2, 2}}) ==
        "attention: segment 1 is {begin 3, queries 2, keys 2}, expected begin 2, keys <= queries <= 3");
  CHECK(text({{0, 3, 3}, {2, 3, 3}}) ==
        "attention: segment 1 is {begin 2, queries 3, keys 3}, expected begin 3, keys <= queries <= 2");
  CHECK(text({{0, 3, 3}, {3, 3, 3}}) ==
        "attention: segment 1 is {begin 3, queries 3, keys 3}, expected begin 3, keys <= queries <= 2");
  CHECK(text({{0, 5, -1}}) ==
        "attention: segment 0 is {begin 0, queries 5, keys -1}, expected begin 0, keys <= queries <= 5");
  CHECK(text({{0, -1, -1}}) ==
        "attention: segment 0 is {begin 0, queries -1, keys -1}, expected begin 0, keys <= queries <= 5");
  CHECK(text({{0, 4, 4}}) == "attention: 1 segments cover [0, 4), expected [0, 5)");
  CHECK(text({}) == "attention: 0 segments cover [0, 0), expected [0, 5)");
}

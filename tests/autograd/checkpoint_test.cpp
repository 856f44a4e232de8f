#include "perft/autograd/checkpoint.hpp"

#include <catch2/catch.hpp>  // test cases

#include "ops/support/harness.hpp"
#include "perft/nn/context.hpp"
#include "perft/ops/add.hpp"
#include "perft/ops/linear.hpp"
#include "perft/ops/low_rank.hpp"
#include "perft/ops/rms_norm.hpp"
#include "perft/ops/swiglu.hpp"

using namespace harness;
using perft::Recording;
using perft::Tape;
using perft::Tensor;
using perft::Variable;
using perft::Weight;

namespace {

constexpr std::int64_t kTokens = 9, kWidth = 6, kExperts = 8;

/// A small routed segment with every kind of state: a norm, a trained router, dropout, routed experts, a residual.
struct Segment {
  perft::Parameter<float> norm{"norm", tensor<float>(numbers(kWidth, 1), {kWidth})};
  Weight<float> gate{"gate", tensor<float>(numbers(kExperts* kWidth, 2), {kExperts, kWidth})};
  perft::LowRankBank<float> bank;
  perft::ForwardContext<float> context;
  perft::RoutingTrace<> trace;
  int runs = 0;

  Segment() {
    bank.in = bank.out = kWidth;
    bank.alpha = 4;
    for (unsigned e = 0; e < kExperts; ++e) {
      auto expert = std::make_unique<perft::LowRankExpert<float>>();
      expert->a.set("a", tensor<float>(numbers(2 * kWidth, 10 + e), {2, kWidth}));
      expert->b.set("b", tensor<float>(numbers(2 * kWidth, 30 + e), {2, kWidth}));
      bank.experts.push_back(std::move(expert));
    }
    auto keys = std::make_shared<perft::TokenKeys>();
    for (std::int32_t t = 0; t < kTokens; ++t) {
      keys->row.push_back(0);
      keys->column.push_back(t);
    }
    context.tokens = keys;
    context.real = std::make_shared<const std::vector<std::uint8_t>>(kTokens, std::uint8_t{1});
    context.training = true;
    context.seed = 3;
    context.base_balance = std::make_shared<perft::LoadBalance>(kExperts);
    context.trace = &trace;
  }

  void train() {
    norm.set_trainable(true);
    gate.make_trainable();
    for (auto& expert : bank.experts) {
      expert->a.set_trainable(true);
      expert->b.set_trainable(true);
    }
  }

  Variable<float> forward(const Variable<float>& x, bool recomputing) {
    ++runs;
    context.recomputing = recomputing;
    trace.next = 0;
    const auto h = perft::rms_norm(x, norm, 1e-5);
    const auto routing =
        context.route(perft::linear<float>(h, gate, perft::Precision::kParam), 2, true, context.base_balance);
    return perft::add(x, perft::low_rank(h, routing.ids, routing.weights, bank, context.dropout(0.3, 1)));
  }

  Bits gradients(const Tensor<float>& dx) const {
    Bits bits;
    bits.add(dx);
    if (norm.gradient().defined()) {
      bits.add(norm.gradient()).add(gate.parameter()->gradient());
      for (const auto& expert : bank.experts) {
        bits.add(expert->a.gradient()).add(expert->b.gradient());
      }
    }
    return bits;
  }
};

Tensor<float> input() {
  return tensor<float>(numbers(kTokens * kWidth, 5), {kTokens, kWidth});
}

Tensor<float> seed() {
  return tensor<float>(numbers(kTokens * kWidth, 6), {kTokens, kWidth});
}

struct Result {
  Bits y, gradients;
};

/// Forward and backward of one segment, plain or as a checkpoint; `between` may change the segment before backward.
template <class Between>
Result run(Segment& segment, bool checkpointed, Between between) {
  Tape tape;
  Recording recording(tape);
  const Leaf<float> x(tape, input());
  const auto y = checkpointed ? perft::checkpoint(x.variable, true,
                                                  [&](const Variable<float>& in, bool recomputing) {
                                                    return segment.forward(in, recomputing);
                                                  })
                              : segment.forward(x.variable, false);
  Result result;
  result.y.add(y.value());
  between();
  tape.add_gradient(y.edge(), seed());
  tape.backward();
  result.gradients = segment.gradients(tape.take_gradient<float>(x.edge));
  return result;
}

}  // namespace

TEST_CASE("checkpoint: value and gradients are those of the recorded segment, bit for bit") {
  for (const bool trains : {true, false}) {
    Segment plain, checkpointed;
    if (trains) {
      plain.train();
      checkpointed.train();
    }
    plain.context.base_balance->set_weight(0.5);
    checkpointed.context.base_balance->set_weight(0.5);
    const Result a = run(plain, false, [] {});
    const Result b = run(checkpointed, true, [] {});
    CHECK(a.y == b.y);
    CHECK(a.gradients == b.gradients);
    CHECK(plain.runs == 1);
    CHECK(checkpointed.runs == 2);
    CHECK(checkpointed.context.base_balance->rows() == kTokens);  // counted once
  }
}

TEST_CASE("checkpoint: only the input is kept") {
  Segment segment;
  segment.train();
  Tape tape;
  Recording recording(tape);
  const Leaf<float> x(tape, input());
  perft::checkpoint(x.variable, true,
                    [&](const Variable<float>& in, bool recomputing) { return segment.forward(in, recomputing); });
  CHECK(tape.size() == 1);
  CHECK(tape.node(0).name() == "checkpoint");
  CHECK(tape.saved_bytes() == kTokens * kWidth * 4);
}

TEST_CASE("checkpoint: without a gradient to send and nothing to train it records nothing") {
  Segment segment;
  Tape tape;
  Recording recording(tape);
  const auto run = [&](const Variable<float>& in, bool recomputing) { return segment.forward(in, recomputing); };
  CHECK_FALSE(perft::checkpoint(Variable<float>(input()), false, run).needs_gradient());
  CHECK(tape.size() == 0);
  const perft::NoRecording pause;
  CHECK_FALSE(perft::checkpoint(Variable<float>(input()), true, run).needs_gradient());
  CHECK(tape.size() == 0);
}

TEST_CASE("checkpoint: a segment that trains is run again even if its input is constant") {
  Segment segment;
  segment.train();
  Tape tape;
  Recording recording(tape);
  const auto y = perft::checkpoint(Variable<float>(input()), true, [&](const Variable<float>& in, bool recomputing) {
    CHECK_FALSE(in.needs_gradient());
    return segment.forward(in, recomputing);
  });
  tape.add_gradient(y.edge(), seed());
  tape.backward();
  CHECK(segment.norm.gradient().defined());
  CHECK(segment.gate.parameter()->gradient().defined());
}

TEST_CASE("checkpoint: a result nobody uses is not formed again") {
  Segment segment;
  segment.train();
  Tape tape;
  Recording recording(tape);
  const Leaf<float> x(tape, input());
  perft::checkpoint(x.variable, true,
                    [&](const Variable<float>& in, bool recomputing) { return segment.forward(in, recomputing); });
  tape.backward();
  CHECK(segment.runs == 1);
}

TEST_CASE("checkpoint: a router that would now choose otherwise does not") {
  // All experts are near ties; between forward and backward the gate is nudged so that another choice wins.
  const auto near_ties = [](Segment& segment, float sign) {
    float* gate = segment.gate.parameter()->mutable_value().mutable_data();
    for (std::int64_t e = 0; e < kExperts; ++e) {
      for (std::int64_t d = 0; d < kWidth; ++d) {
        gate[e * kWidth + d] = 0.5F + sign * 1e-6F * static_cast<float>(e) * static_cast<float>(d + 1);
      }
    }
  };
  Segment segment, other;
  segment.train();
  other.train();
  near_ties(segment, 1.0F);
  near_ties(other, -1.0F);
  Tensor<std::int32_t> chosen, chosen_after;
  const Result nudged = run(segment, true, [&] {
    chosen = segment.trace.ids.at(0);
    near_ties(segment, -1.0F);
  });
  // What the nudged gate chooses by itself.
  const Result chosen_again = run(other, false, [&] { chosen_after = other.trace.ids.at(0); });
  REQUIRE_FALSE(Bits().add(chosen) == Bits().add(chosen_after));
  CHECK_FALSE(nudged.gradients == chosen_again.gradients);
  // Truth: the nudged gate, with the first choices given to it.
  Segment replayed;
  replayed.train();
  near_ties(replayed, -1.0F);
  replayed.trace.ids.push_back(chosen);
  Tape tape;
  Recording recording(tape);
  const Leaf<float> x(tape, input());
  const auto y = replayed.forward(x.variable, true);
  tape.add_gradient(y.edge(), seed());
  tape.backward();
  CHECK(replayed.gradients(tape.take_gradient<float>(x.edge)) == nudged.gradients);
  CHECK(segment.trace.ids.size() == 1);
}

TEST_CASE("checkpoint: a recomputed router with nothing to replay is an error, not a new choice") {
  Segment segment;
  segment.context.layer = 5;
  CHECK(error_text<perft::Error>([&] { segment.forward(Variable<float>(input()), true); }) ==
        "router: nothing recorded to replay in layer 5");
  segment.context.trace = nullptr;
  CHECK(error_text<perft::Error>([&] { segment.forward(Variable<float>(input()), true); }) ==
        "router: nothing recorded to replay in layer 5");
}

TEST_CASE("checkpoint: they nest, and the same bits come from 1, 2 and 3 threads") {
  check_same_bits_for_any_threads([] {
    Segment inner;
    inner.train();
    Tape tape;
    Recording recording(tape);
    const Leaf<float> x(tape, input());
    const auto y = perft::checkpoint(x.variable, true, [&](const Variable<float>& outer_x, bool outer) {
      return perft::checkpoint(outer_x, true, [&, outer](const Variable<float>& in, bool recomputing) {
        return inner.forward(in, outer || recomputing);
      });
    });
    tape.add_gradient(y.edge(), seed());
    tape.backward();
    return inner.gradients(tape.take_gradient<float>(x.edge)).add(y.value());
  });
}

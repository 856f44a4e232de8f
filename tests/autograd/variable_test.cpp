#include "perft/autograd/variable.hpp"

#include <catch2/catch.hpp>  // test cases
#include <thread>            // a tape of another thread

#include "ops/support/harness.hpp"
#include "perft/ops/add.hpp"

using namespace harness;
using perft::Recording;
using perft::Tape;
using perft::Tensor;
using perft::ValueError;
using perft::Variable;

namespace {

const std::string kStale =
    "variable: it was recorded on a tape that has since been cleared; run the forward pass again";

}  // namespace

TEST_CASE("variable: a tensor is a variable nobody differentiates") {
  Tape tape;
  Recording recording(tape);
  const Variable<float> x(tensor<float>({1, 2}, {2}));
  CHECK(x.defined());
  CHECK(x.shape() == perft::Shape{2});
  CHECK_FALSE(x.needs_gradient());
  CHECK_FALSE(x.edge().needed());
  CHECK_FALSE(Variable<float>().defined());
}

TEST_CASE("variable: a leaf needs a gradient only while something is recorded") {
  Tape tape;
  const auto x = perft::leaf(tape, tensor<float>({1, 2}, {2}));
  CHECK_FALSE(x.needs_gradient());
  CHECK_FALSE(x.edge().needed());
  const auto y = perft::add(x, x);
  CHECK(tape.size() == 0);
  CHECK_FALSE(y.needs_gradient());
  Recording recording(tape);
  CHECK(x.needs_gradient());
  CHECK(x.edge().needed());
  const perft::NoRecording pause;
  CHECK_FALSE(x.needs_gradient());
  perft::add(x, x);
  CHECK(tape.size() == 0);
}

TEST_CASE("variable: one of an earlier recording, or of another tape, is refused") {
  Tape tape;
  Recording recording(tape);
  const auto x = perft::leaf(tape, tensor<float>({1, 2}, {2}));
  const auto y = perft::add(x, x);
  tape.backward();
  CHECK(error_text<ValueError>([&] { x.edge(); }) == kStale);
  CHECK(error_text<ValueError>([&] { perft::add(x, y); }) == kStale);
  CHECK(tape.size() == 0);
  const auto z = perft::leaf(tape, tensor<float>({1, 2}, {2}));
  CHECK_NOTHROW(z.edge());
  tape.clear();
  CHECK(error_text<ValueError>([&] { z.edge(); }) == kStale);
  Tape other;
  const auto w = perft::leaf(other, tensor<float>({1}, {1}));
  CHECK(error_text<ValueError>([&] { w.edge(); }) == kStale);
}

TEST_CASE("variable: a chain used twice gets the sum along both paths") {
  // y = x + x, z = y + x, u = z + y: u = 5 x.
  Tape tape;
  Recording recording(tape);
  const Leaf<double> x(tape, tensor<double>({1, 2}, {2}));
  const auto y = perft::add(x.variable, x.variable);
  const auto z = perft::add(y, x.variable);
  const auto u = perft::add(z, y);
  const auto seed = tensor<double>({1, 10}, {2});
  tape.add_gradient(u.edge(), seed);
  tape.backward();
  CHECK(values(tape.take_gradient<double>(x.edge)) == Values{5, 50});
  CHECK(values(seed) == Values{1, 10});
}

TEST_CASE("variable: an output nobody seeded sends nothing") {
  Tape tape;
  Recording recording(tape);
  const Leaf<double> x(tape, tensor<double>({1, 2}, {2}));
  perft::add(x.variable, x.variable);
  tape.backward();
  CHECK_FALSE(tape.take_gradient<double>(x.edge).defined());
}

TEST_CASE("variable: differentiable() builds a node only if one is wanted and something is recorded") {
  int built = 0;
  const auto make = [&](perft::Edge edge) -> std::unique_ptr<perft::Node> {
    ++built;
    return std::make_unique<perft::AddNode<float, float>>(perft::Edge{}, perft::Edge{}, edge);
  };
  const auto value = tensor<float>({1}, {1});
  perft::differentiable(value, true, make);
  CHECK(built == 0);
  Tape tape;
  Recording recording(tape);
  CHECK_FALSE(perft::differentiable(value, false, make).needs_gradient());
  CHECK(built == 0);
  CHECK(perft::differentiable(value, true, make).needs_gradient());
  CHECK(built == 1);
  CHECK(tape.size() == 1);
}

TEST_CASE("variable: a variable of another thread's tape is refused") {
  Variable<float> theirs;
  std::thread([&] {
    Tape tape;
    theirs = perft::leaf(tape, tensor<float>({1, 2}, {2}));
  }).join();
  // Tapes made in the same order on two threads: a count per thread would give both the same epoch.
  std::string message;
  std::thread([&] {
    Tape tape;
    Recording recording(tape);
    try {
      (void)theirs.edge();
    } catch (const ValueError& error) {
      message = error.what();
    }
  }).join();
  CHECK(message == kStale);
}

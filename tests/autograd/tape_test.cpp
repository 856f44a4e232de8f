#include "perft/autograd/tape.hpp"

#include <catch2/catch.hpp>  // test cases

#include "ops/support/harness.hpp"
#include "perft/autograd/variable.hpp"

using namespace harness;
using perft::Edge;
using perft::Node;
using perft::NoRecording;
using perft::Recording;
using perft::Tape;
using perft::Tensor;
using perft::ValueError;
using perft::Variable;

namespace {

/// Adds given gradients to given edges, and writes down when it ran and when it died.
class Probe final : public Node {
 public:
  Probe(std::string id, std::vector<std::string>& log, std::vector<std::pair<Edge, Tensor<double>>> sends)
      : id_(std::move(id)), log_(log), sends_(std::move(sends)) {}

  ~Probe() override { log_.push_back("~" + id_); }

  std::string_view name() const override { return id_; }

  std::size_t saved_bytes() const override { return 10; }

  void backward(Tape& tape) override {
    log_.push_back(id_);
    if (id_ == "throws") {
      throw ValueError("on purpose");
    }
    for (auto& [edge, gradient] : sends_) {
      tape.add_gradient(edge, gradient);
    }
  }

 private:
  std::string id_;
  std::vector<std::string>& log_;
  std::vector<std::pair<Edge, Tensor<double>>> sends_;
};

Tensor<double> vector_of(const Values& v) {
  return tensor<double>(v, {static_cast<std::int64_t>(v.size())});
}

}  // namespace

TEST_CASE("tape: nodes run once, newest first, and each is gone before the next runs") {
  std::vector<std::string> log;
  Tape tape;
  for (const char* id : {"a", "b", "c"}) {
    tape.record(std::make_unique<Probe>(id, log, std::vector<std::pair<Edge, Tensor<double>>>{}));
  }
  CHECK(tape.size() == 3);
  CHECK(tape.saved_bytes() == 30);
  CHECK(tape.node(1).name() == "b");
  tape.backward();
  CHECK(log == std::vector<std::string>{"c", "~c", "b", "~b", "a", "~a"});
  CHECK(tape.size() == 0);
  CHECK(tape.saved_bytes() == 0);
}

TEST_CASE("tape: an error empties it, newest first, and it can be used again") {
  std::vector<std::string> log;
  Tape tape;
  const auto epoch = tape.epoch();
  tape.record(std::make_unique<Probe>("first", log, std::vector<std::pair<Edge, Tensor<double>>>{}));
  tape.record(std::make_unique<Probe>("second", log, std::vector<std::pair<Edge, Tensor<double>>>{}));
  tape.record(std::make_unique<Probe>("throws", log, std::vector<std::pair<Edge, Tensor<double>>>{}));
  CHECK(error_text<ValueError>([&] { tape.backward(); }) == "on purpose");
  CHECK(log == std::vector<std::string>{"throws", "~throws", "~second", "~first"});
  CHECK(tape.size() == 0);
  CHECK(tape.epoch() != epoch);
  CHECK_NOTHROW(tape.backward());
}

TEST_CASE("tape: gradients of one edge add up, and a slot is empty once taken") {
  Tape tape;
  const Edge edge = tape.new_slot();
  tape.add_gradient(edge, vector_of({1, 2}));
  tape.add_gradient(edge, vector_of({10, 20}));
  tape.add_gradient(edge, vector_of({100, 200}));
  CHECK(values(tape.take_gradient<double>(edge)) == Values{111, 222});
  CHECK_FALSE(tape.take_gradient<double>(edge).defined());
}

TEST_CASE("tape: a tensor somebody else holds is never added into") {
  for (const bool shared_first : {true, false}) {
    for (const bool shared_second : {true, false}) {
      Tape tape;
      const Edge edge = tape.new_slot();
      Tensor<double> first = vector_of({1, 2}), second = vector_of({10, 20});
      const auto first_before = first.data();
      tape.add_gradient(edge, shared_first ? first : std::move(first));
      tape.add_gradient(edge, shared_second ? second : std::move(second));
      const auto sum = tape.take_gradient<double>(edge);
      CHECK(values(sum) == Values{11, 22});
      CHECK((sum.data() == first_before) == !shared_first);  // in place where it may
      CHECK((!shared_first || values(first) == Values{1, 2}));
      CHECK((!shared_second || values(second) == Values{10, 20}));
    }
  }
}

TEST_CASE("tape: a strided gradient is copied before anything is added to it or from it") {
  const auto strided = [] { return tensor<double>({1, 2, 3, 4, 5, 6}, {2, 3}).transpose(0, 1); };
  const auto plain = [] { return tensor<double>({10, 20, 30, 40, 50, 60}, {3, 2}); };
  const auto sum = [](const Tensor<double>& first, const Tensor<double>& second) {
    Tape tape;
    const Edge edge = tape.new_slot();
    tape.add_gradient(edge, first);
    tape.add_gradient(edge, second);
    return values(tape.take_gradient<double>(edge));
  };
  CHECK(sum(strided(), plain()) == Values{11, 24, 32, 45, 53, 66});
  CHECK(sum(plain(), strided()) == Values{11, 24, 32, 45, 53, 66});
  CHECK(sum(strided(), strided()) == Values{2, 8, 4, 10, 6, 12});
  Tape tape;  // the same with tensors nobody else holds
  const Edge edge = tape.new_slot();
  tape.add_gradient(edge, strided());
  tape.add_gradient(edge, plain());
  CHECK(values(tape.take_gradient<double>(edge)) == Values{11, 24, 32, 45, 53, 66});
}

TEST_CASE("tape: what is not needed costs nothing") {
  Tape tape;
  tape.add_gradient(Edge{}, vector_of({1}));
  CHECK_FALSE(tape.take_gradient<double>(Edge{}).defined());
  CHECK_FALSE(Edge{}.needed());
  CHECK_FALSE(tape.take_gradient<double>(tape.new_slot()).defined());  // nobody sent one
}

TEST_CASE("tape: gradients of leaves stay after backward until something new is recorded") {
  std::vector<std::string> log;
  Tape tape;
  const Edge leaf = tape.new_slot();
  tape.record(std::make_unique<Probe>("n", log, std::vector<std::pair<Edge, Tensor<double>>>{{leaf, vector_of({3})}}));
  tape.backward();
  CHECK(values(tape.take_gradient<double>(leaf)) == Values{3});
  const Edge next = tape.new_slot();  // a new recording begins
  CHECK(next.slot == 0);
  tape.clear();
  CHECK(tape.new_slot().slot == 0);
}

TEST_CASE("tape: a gradient of another type or shape is refused") {
  Tape tape;
  const Edge edge = tape.new_slot();
  tape.add_gradient(edge, vector_of({1, 2}));
  const std::string text = "tape: a gradient's element type or device differs from its variable's";
  CHECK(error_text<perft::Error>([&] { tape.add_gradient(edge, tensor<float>({1, 2}, {2})); }) == text);
  CHECK(error_text<perft::ShapeError>([&] { tape.add_gradient(edge, vector_of({1})); }) ==
        "accumulate: x is [1], expected [2]");
  CHECK(error_text<perft::Error>([&] { tape.take_gradient<float>(edge); }) == text);
}

TEST_CASE("tape: recordings nest, and end with their scope") {
  CHECK(Tape::current() == nullptr);
  Tape outer, inner;
  {
    Recording first(outer);
    CHECK(Tape::current() == &outer);
    {
      Recording second(inner);
      CHECK(Tape::current() == &inner);
      NoRecording pause;
      CHECK(Tape::current() == nullptr);
    }
    CHECK(Tape::current() == &outer);
  }
  CHECK(Tape::current() == nullptr);
}

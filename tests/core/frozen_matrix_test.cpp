#include "perft/core/frozen_matrix.hpp"

#include <catch2/catch.hpp>  // test cases

using perft::DType;
using perft::FrozenMatrix;

TEST_CASE("frozen_matrix: says what it is and keeps its owner alive") {
  auto owner = std::make_shared<std::vector<std::byte>>(100);
  const std::weak_ptr<std::vector<std::byte>> watch = owner;
  {
    const FrozenMatrix<> w("mlp.gate.weight", owner->data() + 1, DType::bf16, 4, 5, owner);
    owner.reset();
    CHECK(w.name() == "mlp.gate.weight");
    CHECK(w.rows() == 4);
    CHECK(w.cols() == 5);
    CHECK(w.bytes() == 40);
    CHECK(w.dtype() == DType::bf16);
    CHECK(w.defined());
    CHECK_FALSE(watch.expired());
  }
  CHECK(watch.expired());
  CHECK_FALSE(FrozenMatrix<>().defined());
  CHECK(FrozenMatrix<>().bytes() == 0);
}

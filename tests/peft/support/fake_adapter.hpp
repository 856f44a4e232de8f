#pragma once
// What readers and writers of adapter folders see of a model, without a model.

#include "ops/support/harness.hpp"
#include "perft/nn/slots.hpp"
#include "perft/peft/adapter_config.hpp"

namespace peft_test {

using harness::numbers;

/// A matrix, one that is held transposed, and a frozen one.
struct Fake {
  perft::Parameter<float> a, b, frozen;

  explicit Fake(double scale = 1.0) {
    a.set("x.lora_A.weight", harness::tensor<float>(numbers(6, 1, scale), {2, 3}));
    b.set("x.lora_B.weight", harness::tensor<float>(numbers(8, 2, scale), {2, 4}));
    b.set_stored_transposed(true);
    frozen.set("base", harness::tensor<float>(numbers(2, 3), {2}));
    a.set_trainable(true);
    b.set_trainable(true);
  }

  void visit(perft::Visitor<float>& visitor) {
    visitor.parameter(frozen);
    visitor.adapter_parameter(b);  // not in the file's order
    visitor.adapter_parameter(a);
  }
};

inline perft::AdapterSpec perft_s() {
  perft::AdapterSpec spec;
  spec.method = perft::Method::kPerftS;
  spec.rank = 2;
  spec.experts = 1;
  return spec;
}

inline const perft::BaseFacts kBase{"olmoe", 3, 1, 10, 2};

}  // namespace peft_test

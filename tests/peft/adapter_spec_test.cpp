#include "perft/peft/adapter_spec.hpp"

#include <catch2/catch.hpp>
#include <limits>  // infinity
#include <string>
#include <vector>

#include "ops/support/harness.hpp"

using perft::AdapterSpec;
using perft::Method;

namespace {

AdapterSpec perft_r() {
  AdapterSpec spec;
  spec.method = Method::kPerftR;
  spec.experts = 4;
  spec.top_k = 2;
  return spec;
}

AdapterSpec lora(std::vector<std::string> targets) {
  AdapterSpec spec;
  spec.method = Method::kLora;
  spec.targets = std::move(targets);
  return spec;
}

template <class Change>
std::string refusal(AdapterSpec spec, Change change) {
  change(spec);
  return harness::error_text<perft::ValueError>([&] { perft::check_spec(spec); });
}

}  // namespace

TEST_CASE("check_spec takes every published form") {
  AdapterSpec spec = perft_r();
  CHECK_NOTHROW(perft::check_spec(spec));
  spec.router_weights = perft::RouterWeights::kAuthorsOlmoe;
  spec.delta = perft::DeltaForm::kParallel;
  spec.top_k = 4;
  CHECK_NOTHROW(perft::check_spec(spec));
  spec.rank = 0;
  spec.ranks = {{1, 2, 3, 4}};
  spec.alpha = 8;
  CHECK_NOTHROW(perft::check_spec(spec));
  AdapterSpec plain;
  for (const Method method : {Method::kPerftS, Method::kPerftE}) {
    plain.method = method;
    CHECK_NOTHROW(perft::check_spec(plain));
  }
  plain.method = Method::kPerftD;
  plain.experts = 1;
  CHECK_NOTHROW(perft::check_spec(plain));
  CHECK_NOTHROW(perft::check_spec(lora({perft::kLoraTargets.begin(), perft::kLoraTargets.end()})));
}

TEST_CASE("alpha is twice the rank unless set") {
  AdapterSpec spec;
  spec.rank = 32;
  CHECK(spec.effective_alpha() == 64);
  spec.alpha = 5;
  CHECK(spec.effective_alpha() == 5);
  CHECK(refusal(perft_r(), [](auto& s) {
          s.ranks = {{1, 2, 3, 4}};
        }) == "adapter: alpha is not set, expected a number beside a rank per expert");
}

TEST_CASE("check_spec refuses what no base could make right") {
  CHECK(refusal(perft_r(), [](auto& s) { s.rank = 0; }) == "adapter: rank 0, expected at least 1");
  CHECK(refusal(perft_r(), [](auto& s) { s.ranks = {{3, 3}, {3, -1}}; }) == "adapter: rank -1, expected at least 1");
  CHECK(refusal(perft_r(), [](auto& s) { s.dropout = 1; }) == "adapter: dropout 1, expected [0, 1)");
  CHECK(refusal(perft_r(), [](auto& s) { s.dropout = -0.5; }) == "adapter: dropout -0.5, expected [0, 1)");
  CHECK(refusal(perft_r(), [](auto& s) { s.alpha = 0; }) == "adapter: alpha 0, expected a positive number");
  CHECK(refusal(perft_r(), [](auto& s) { s.alpha = std::numeric_limits<double>::infinity(); }) ==
        "adapter: alpha inf, expected a positive number");
  CHECK(refusal(perft_r(), [](auto& s) { s.experts = 0; }) == "adapter: 0 experts, expected at least 1");
  CHECK(refusal(perft_r(), [](auto& s) {
          s.method = Method::kPerftD;
          s.experts = 0;
        }) == "adapter: 0 experts, expected at least 1");
  CHECK(refusal(perft_r(), [](auto& s) { s.top_k = 0; }) == "adapter: top-k 0 of 4 experts, expected 1 … 4");
  CHECK(refusal(perft_r(), [](auto& s) { s.top_k = 5; }) == "adapter: top-k 5 of 4 experts, expected 1 … 4");
  CHECK(refusal(perft_r(), [](auto& s) { s.targets = {"gate"}; }) ==
        "adapter: method perft-r with 1 LoRA targets, expected none");
  CHECK(refusal(lora({}), [](auto&) {}).starts_with("adapter: method lora without targets, expected some of "));
  CHECK(refusal(lora({"gate"}), [](auto& s) { s.delta = perft::DeltaForm::kParallel; }) ==
        "adapter: method lora has delta form lora only");
  for (const Method method : {Method::kPerftS, Method::kPerftD, Method::kPerftE}) {
    CHECK(refusal(perft_r(),
                  [&](auto& s) {
                    s.method = method;
                    s.router_weights = perft::RouterWeights::kAuthorsOlmoe;
                  }) ==
          "adapter: router weights authors-olmoe belong to perft-r, not " + std::string(perft::method_name(method)));
  }
  CHECK(refusal(lora({"gate", "k"}), [](auto&) {}).starts_with("adapter: LoRA target 'k', expected one of "));
}

#include "perft/peft/adapter_config.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "ops/support/harness.hpp"

using harness::error_text;
using perft::AdapterConfig;
using perft::BaseFacts;
using perft::IoError;
using perft::Method;

namespace {

const char* const kGood = R"({"format": "perft-adapter", "version": 1, "base_model_type": "olmoe",
  "base": {"hidden_size": 24, "num_hidden_layers": 2, "vocab_size": 37, "num_experts": 6},
  "method": "perft-r", "delta": "lora", "rank": 3, "alpha": 6.5, "experts": 4, "top_k": 2, "dropout": 0.25,
  "router_weights": "own", "targets": []})";

const BaseFacts kBase{"olmoe", 24, 2, 37, 6};

AdapterConfig parse(const std::string& changes, const std::string& without = "") {
  perft::Json json = perft::Json::parse(kGood);
  json.update(perft::Json::parse(changes));
  if (!without.empty()) json.erase(without);
  return perft::parse_adapter_config(json, "F");
}

struct Bad {
  const char* changes;
  const char* text;
};

}  // namespace

TEST_CASE("adapter_config.json: every field arrives") {
  const AdapterConfig c = parse("{}");
  CHECK(c.base_model_type == "olmoe");
  REQUIRE(c.base);
  CHECK(c.base->hidden_size == 24);
  CHECK(c.base->num_hidden_layers == 2);
  CHECK(c.base->vocab_size == 37);
  CHECK(c.base->num_experts == 6);
  CHECK(c.spec.method == Method::kPerftR);
  CHECK(c.spec.delta == perft::DeltaForm::kLora);
  CHECK(c.spec.rank == 3);
  CHECK(c.spec.ranks.empty());
  CHECK(c.spec.alpha == 6.5);
  CHECK(c.spec.experts == 4);
  CHECK(c.spec.top_k == 2);
  CHECK(c.spec.dropout == 0.25);
  CHECK(c.spec.router_weights == perft::RouterWeights::kOwn);
  CHECK(c.notes.empty());
  CHECK_NOTHROW(perft::check_base(c, kBase, "F"));

  const AdapterConfig other = parse(R"({"delta": "parallel", "router_weights": "authors-olmoe", "rank": [[1, 2, 3, 4],
                                        [5, 6, 7, 8]]})");
  CHECK(other.spec.delta == perft::DeltaForm::kParallel);
  CHECK(other.spec.router_weights == perft::RouterWeights::kAuthorsOlmoe);
  CHECK(other.spec.ranks == std::vector<std::vector<std::int64_t>>{{1, 2, 3, 4}, {5, 6, 7, 8}});
  CHECK(other.spec.rank_of(1, 2) == 7);
  CHECK_NOTHROW(perft::check_base(other, kBase, "F"));

  const AdapterConfig lora = parse(R"({"method": "lora", "experts": 0, "top_k": 0, "targets": ["q_proj", "gate"]})");
  CHECK(lora.spec.method == Method::kLora);
  CHECK(lora.spec.targets == std::vector<std::string>{"q_proj", "gate"});
  CHECK(lora.spec.targets_role("gate"));
  CHECK_FALSE(lora.spec.targets_role("gate_proj"));
}

TEST_CASE("adapter_config.json: written and read again it says the same, byte for byte") {
  for (const char* changes :
       {"{}", R"({"method": "perft-s", "experts": 1, "top_k": 0, "delta": "parallel"})",
        R"({"method": "perft-d", "top_k": 0, "rank": [[1, 2, 3, 4], [4, 3, 2, 1]]})",
        R"({"method": "perft-e", "experts": 6, "top_k": 0})", R"({"router_weights": "authors-olmoe"})",
        R"({"method": "lora", "experts": 0, "top_k": 0, "targets": ["v_proj", "down_proj"]})"}) {
    INFO(changes);
    const AdapterConfig c = parse(changes);
    const std::string text = perft::adapter_config_json(c.spec, kBase).dump();
    const AdapterConfig again = perft::parse_adapter_config(perft::Json::parse(text), "F");
    CHECK(perft::adapter_config_json(again.spec, *again.base).dump() == text);
    CHECK(again.base_model_type == "olmoe");
    CHECK(again.notes.empty());
  }
}

TEST_CASE("adapter_config.json: unknown keys are notes, base may be left out") {
  const AdapterConfig c = parse(R"({"author": "x", "r": 4})", "base");
  CHECK(c.notes == std::vector<std::string>{"F: unknown key 'author' is ignored", "F: unknown key 'r' is ignored"});
  CHECK_FALSE(c.base);
  CHECK_NOTHROW(perft::check_base(c, kBase, "F"));
}

TEST_CASE("adapter_config.json: a missing key is an error") {
  for (const Bad& bad : {
           Bad{"format", "F: format is missing, expected a string; add it"},
           Bad{"version", "F: version is missing, expected a whole number; add it"},
           Bad{"base_model_type", "F: base_model_type is missing, expected a string; add it"},
           Bad{"method", "F: method is missing, expected a string; add it"},
           Bad{"delta", "F: delta is missing, expected a string; add it"},
           Bad{"rank", "F: rank is missing, expected a whole number; add it"},
           Bad{"alpha", "F: alpha is missing, expected a number above 0"},
           Bad{"experts", "F: experts is missing, expected a whole number; add it"},
           Bad{"top_k", "F: top_k is missing, expected a whole number; add it"},
           Bad{"dropout", "F: dropout is missing, expected a number in [0, 1)"},
           Bad{"router_weights", "F: router_weights is missing, expected a string; add it"},
           Bad{"targets", "F: targets is missing, expected a list of names"},
       }) {
    CHECK(error_text<IoError>([&] { parse("{}", bad.changes); }) == bad.text);
  }
}

TEST_CASE("adapter_config.json: wrong types and values without sense are errors") {
  for (const Bad& bad : {
           Bad{R"({"format": "peft"})", R"(F: format is "peft", expected "perft-adapter")"},
           Bad{R"({"format": 1})", "F: format is 1, expected a string; correct the file"},
           Bad{R"({"version": 2})", "F: version is 2, expected 1 to 1; correct the file"},
           Bad{R"({"method": "perft-x"})",
               R"(F: method is "perft-x", expected perft-s, perft-d, perft-r, perft-e or lora)"},
           Bad{R"({"delta": "serial"})", R"(F: delta is "serial", expected lora or parallel)"},
           Bad{R"({"rank": 0})", "F: rank is 0, expected 1 to 1048576; correct the file"},
           Bad{R"({"rank": 2.5})", "F: rank is 2.5, expected a whole number; correct the file"},
           Bad{R"({"rank": []})", "F: rank is an empty list, expected a number or one list per layer"},
           Bad{R"({"rank": [[1], 2]})", "F: rank [1] is 2, expected a list with a number per expert"},
           Bad{R"({"rank": [[1, 0]]})", "F: rank [0] holds 0, expected numbers from 1 to 1048576"},
           Bad{R"({"rank": [[1, "2"]]})", R"(F: rank [0] holds "2", expected numbers from 1 to 1048576)"},
           Bad{R"({"alpha": 0})", "F: alpha is 0, expected a number above 0; correct the file"},
           Bad{R"({"alpha": "16"})", R"(F: alpha is "16", expected a number; correct the file)"},
           Bad{R"({"alpha": null})", "F: alpha is missing, expected a number above 0"},
           Bad{R"({"experts": -1})", "F: experts is -1, expected 0 to 1048576; correct the file"},
           Bad{R"({"dropout": 1})", "F: dropout is 1, expected a number in [0, 1)"},
           Bad{R"({"dropout": 1.5})", "F: dropout is 1.5, expected a number from 0 to 1; correct the file"},
           Bad{R"({"router_weights": "base"})", R"(F: router_weights is "base", expected own or authors-olmoe)"},
           Bad{R"({"targets": "q_proj"})", "F: targets is not a list, expected a list of names"},
           Bad{R"({"targets": [1]})", "F: targets holds 1, expected names"},
           Bad{R"({"base": 3})", "F: base: is not a JSON object, expected one; check that it is the right file"},
           Bad{R"({"base": {}})", "F: base: hidden_size is missing, expected a whole number; add it"},
       }) {
    INFO(bad.changes);
    CHECK(error_text<IoError>([&] { parse(bad.changes); }) == bad.text);
  }
}

TEST_CASE("adapter_config.json: what check_spec refuses is an error of the file") {
  for (const char* changes : {R"({"experts": 0})", R"({"top_k": 0})", R"({"top_k": 5})", R"({"targets": ["q_proj"]})",
                              R"({"method": "lora"})", R"({"method": "lora", "targets": ["q"]})",
                              R"({"method": "lora", "targets": ["q_proj"], "delta": "parallel"})",
                              R"({"method": "perft-d", "router_weights": "authors-olmoe"})"}) {
    INFO(changes);
    const std::string text = error_text<IoError>([&] { parse(changes); });
    CHECK(text.starts_with("F: adapter: "));
  }
}

TEST_CASE("an adapter of another base is refused by the fact that differs") {
  const AdapterConfig c = parse("{}");
  const auto text = [&](const AdapterConfig& config, const BaseFacts& base) {
    return error_text<IoError>([&] { perft::check_base(config, base, "F"); });
  };
  const std::string advice = "; use the model the adapter was trained on";
  CHECK(text(c, {"mixtral", 24, 2, 37, 6}) == R"(F: base_model_type is "olmoe", expected the model's "mixtral")");
  CHECK(text(c, {"olmoe", 32, 2, 37, 6}) == "F: base: hidden_size is 24, expected the model's 32" + advice);
  CHECK(text(c, {"olmoe", 24, 3, 37, 6}) == "F: base: num_hidden_layers is 2, expected the model's 3" + advice);
  CHECK(text(c, {"olmoe", 24, 2, 38, 6}) == "F: base: vocab_size is 37, expected the model's 38" + advice);
  CHECK(text(c, {"olmoe", 24, 2, 37, 8}) == "F: base: num_experts is 6, expected the model's 8" + advice);
  CHECK(text(parse(R"({"rank": [[1, 1, 1, 1]]})"), kBase) == "F: rank has 1 layers, expected the model's 2");
  CHECK(text(parse(R"({"rank": [[1, 1, 1, 1], [1, 1]]})"), kBase) ==
        "F: rank[1] has 2 numbers, expected one per expert (4)");
  CHECK(text(parse(R"({"method": "perft-s", "experts": 1, "top_k": 0, "rank": [[1], [1, 2]]})"), kBase) ==
        "F: rank[1] has 2 numbers, expected one per expert (1)");
  CHECK(text(parse(R"({"method": "perft-e", "experts": 0, "top_k": 0, "rank": [[1], [1]]})"), kBase) ==
        "F: rank[0] has 1 numbers, expected one per expert (6)");
}

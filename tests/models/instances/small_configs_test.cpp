// What cases.hpp declares and needs a JSON parser, once for this folder's tests.

#include <catch2/catch.hpp>  // test cases

#include "models/support/cases.hpp"
#include "reference/golden_case.hpp"

namespace models_test {

namespace {

std::string merged(nlohmann::json config, const std::string& changes) {
  config.update(nlohmann::json::parse(changes));
  return config.dump(1);
}

}  // namespace

std::string small_olmoe(const std::string& changes) {
  return merged({{"model_type", "olmoe"},
                 {"hidden_size", 24},
                 {"num_hidden_layers", 2},
                 {"num_attention_heads", 4},
                 {"num_key_value_heads", 4},
                 {"intermediate_size", 10},
                 {"num_experts", 6},
                 {"num_experts_per_tok", 2},
                 {"vocab_size", 37},
                 {"rms_norm_eps", 1e-5},
                 {"rope_theta", 1e4},
                 {"norm_topk_prob", false},
                 {"router_aux_loss_coef", 0.05},
                 {"pad_token_id", 1},
                 {"tie_word_embeddings", false}},
                changes);
}

std::string small_mixtral(const std::string& changes) {
  return merged({{"model_type", "mixtral"},
                 {"hidden_size", 24},
                 {"num_hidden_layers", 2},
                 {"num_attention_heads", 6},
                 {"num_key_value_heads", 2},
                 {"intermediate_size", 10},
                 {"num_local_experts", 5},
                 {"num_experts_per_tok", 2},
                 {"vocab_size", 37},
                 {"rms_norm_eps", 1e-5},
                 {"rope_theta", 1e6},
                 {"router_aux_loss_coef", 0.08},
                 {"tie_word_embeddings", false},
                 {"sliding_window", nullptr}},
                changes);
}

reference::RefConfig reference_config(const std::string& file) {
  return reference::read_config(file);
}

}  // namespace models_test

TEST_CASE("changes to a small configuration are merged over it") {
  const auto json = nlohmann::json::parse(models_test::small_mixtral(R"({"num_local_experts": 3, "head_dim": 10})"));
  CHECK(json.at("num_local_experts") == 3);
  CHECK(json.at("head_dim") == 10);
  CHECK(json.at("hidden_size") == 24);
}

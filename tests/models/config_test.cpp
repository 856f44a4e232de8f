#include "perft/models/config.hpp"

#include <catch2/catch.hpp>  // test cases
#include <cstdint>           // integers
#include <string>            // texts
#include <vector>            // tables

#include "io/temp_folder.hpp"

using perft::Family;
using perft::IoError;
using perft::Json;
using perft::ModelConfig;
using perft::read_eos_ids;
using perft::UnsupportedError;
using Ids = std::vector<std::int64_t>;

namespace {

std::string fixture(const std::string& name) {
#ifdef PERFT_FIXTURES
  return std::string(PERFT_FIXTURES) + "/configs/" + name;
#else
  return (std::filesystem::path(__FILE__).parent_path().parent_path() / "fixtures" / "configs" / name).string();
#endif
}

/// The least a file must say.
Json least(const std::string& family) {
  Json json = Json::parse(R"({"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 160, "num_attention_heads": 4,
                              "num_experts_per_tok": 2, "intermediate_size": 48})");
  json["model_type"] = family;
  json[family == "olmoe" ? "num_experts" : "num_local_experts"] = 8;
  if (family == "mixtral") json["num_key_value_heads"] = 2;
  return json;
}

/// `least(family)` with one key changed; the value as it stands in a file (Json literals in C++ are slow to compile).
Json with(const std::string& family, const std::string& key, const std::string& value) {
  Json json = least(family);
  json[key] = Json::parse(value);
  return json;
}

ModelConfig parse(const Json& json) {
  return ModelConfig::parse(json, "c.json");
}

}  // namespace

TEST_CASE("OLMoE in both spellings of transformers") {
  for (const char* name : {"olmoe.json", "olmoe.transformers5.json"}) {
    const ModelConfig c = ModelConfig::load(fixture(name));
    CHECK(c.family == Family::olmoe);
    CHECK(c.hidden_size == 64);
    CHECK(c.num_hidden_layers == 2);
    CHECK(c.num_attention_heads == 4);
    CHECK(c.num_key_value_heads == 4);
    CHECK(c.head_dim == 16);
    CHECK(c.intermediate_size == 48);
    CHECK(c.num_experts == 8);
    CHECK(c.num_experts_per_tok == 2);
    CHECK(c.vocab_size == 160);
    CHECK(c.max_position_embeddings == 128);
    CHECK(c.rope_theta == 1e4);
    CHECK(c.rms_norm_eps == 1e-5);
    CHECK_FALSE(c.norm_topk_prob);
    CHECK_FALSE(c.clip_qkv);
    CHECK_FALSE(c.sliding_window);
    CHECK(c.router_aux_loss_coef == 0.01);
    CHECK(c.router_jitter_noise == 0.0);
    CHECK(c.initializer_range == 0.1);
    CHECK_FALSE(c.tie_word_embeddings);
    CHECK(c.pad_token_id == 1);
    CHECK_FALSE(c.bos_token_id);
    CHECK(c.eos_token_ids == Ids{2});
  }
  CHECK(ModelConfig::load(fixture("olmoe.json")).torch_dtype == "float32");
  CHECK_FALSE(ModelConfig::load(fixture("olmoe.transformers5.json")).torch_dtype);
}

TEST_CASE("Mixtral in both spellings of transformers") {
  for (const char* name : {"mixtral.json", "mixtral.transformers5.json"}) {
    const ModelConfig c = ModelConfig::load(fixture(name));
    CHECK(c.family == Family::mixtral);
    CHECK(c.num_attention_heads == 4);
    CHECK(c.num_key_value_heads == 2);
    CHECK(c.head_dim == 16);
    CHECK(c.intermediate_size == 96);
    CHECK(c.num_experts == 4);
    CHECK(c.rope_theta == 1e6);
    CHECK(c.norm_topk_prob);
    CHECK_FALSE(c.sliding_window);
    CHECK(c.router_aux_loss_coef == 0.02);
    CHECK_FALSE(c.pad_token_id);
    CHECK(c.bos_token_id == 1);
    CHECK(c.eos_token_ids == Ids{2});
  }
}

TEST_CASE("the released models") {
  const ModelConfig olmoe = ModelConfig::load(fixture("olmoe-released.json"));
  CHECK(olmoe.head_dim == 128);
  CHECK(olmoe.num_experts == 64);
  CHECK(olmoe.rms_norm_eps == 1e-5);  // the file does not say
  CHECK(olmoe.torch_dtype == "bfloat16");
  CHECK(olmoe.eos_token_ids == Ids{50279});
  const ModelConfig mixtral = ModelConfig::load(fixture("mixtral-released.json"));
  CHECK(mixtral.head_dim == 128);
  CHECK(mixtral.num_key_value_heads == 8);
  CHECK(mixtral.max_position_embeddings == 32768);
}

TEST_CASE("absent keys have the defaults of transformers' classes") {
  const ModelConfig olmoe = parse(least("olmoe"));
  CHECK(olmoe.num_key_value_heads == 4);
  CHECK(olmoe.max_position_embeddings == 4096);
  CHECK(olmoe.rope_theta == 1e4);
  CHECK(olmoe.rms_norm_eps == 1e-5);
  CHECK_FALSE(olmoe.norm_topk_prob);
  CHECK(olmoe.router_aux_loss_coef == 0.01);
  CHECK(olmoe.initializer_range == 0.02);
  CHECK_FALSE(olmoe.tie_word_embeddings);
  CHECK(olmoe.pad_token_id == 1);
  CHECK_FALSE(olmoe.bos_token_id);
  CHECK(olmoe.eos_token_ids == Ids{50279});
  CHECK_FALSE(olmoe.torch_dtype);

  const ModelConfig mixtral = parse(least("mixtral"));
  CHECK(mixtral.max_position_embeddings == 131072);
  CHECK(mixtral.rope_theta == 1e6);
  CHECK(mixtral.norm_topk_prob);
  CHECK(mixtral.router_aux_loss_coef == 0.001);
  CHECK(mixtral.router_jitter_noise == 0.0);
  CHECK_FALSE(mixtral.pad_token_id);
  CHECK(mixtral.bos_token_id == 1);
  CHECK(mixtral.eos_token_ids == Ids{2});
  Json json = least("mixtral");
  json.erase("num_key_value_heads");
  json["num_attention_heads"] = 16;
  CHECK(parse(json).num_key_value_heads == 8);
  json["num_key_value_heads"] = nullptr;
  CHECK(parse(json).num_key_value_heads == 16);
}

TEST_CASE("null unsets what a class would default") {
  CHECK_FALSE(parse(with("olmoe", "pad_token_id", "null")).pad_token_id);
  CHECK_FALSE(parse(with("mixtral", "bos_token_id", "null")).bos_token_id);
  CHECK(parse(with("olmoe", "eos_token_id", "null")).eos_token_ids.empty());
}

TEST_CASE("options are read") {
  CHECK(parse(with("olmoe", "norm_topk_prob", "true")).norm_topk_prob);
  CHECK(parse(with("mixtral", "norm_topk_prob", "false")).norm_topk_prob);  // Mixtral has no such switch
  CHECK(parse(with("olmoe", "clip_qkv", "8")).clip_qkv == 8.0);
  CHECK(parse(with("mixtral", "sliding_window", "5")).sliding_window == 5);
  CHECK(parse(with("mixtral", "router_jitter_noise", "0.01")).router_jitter_noise == 0.01);
  CHECK(parse(with("mixtral", "head_dim", "24")).head_dim == 24);
  CHECK(parse(with("mixtral", "head_dim", "null")).head_dim == 16);
  CHECK(parse(with("olmoe", "tie_word_embeddings", "true")).tie_word_embeddings);
  CHECK(parse(with("olmoe", "eos_token_id", "[5, 6]")).eos_token_ids == Ids{5, 6});
  CHECK(parse(with("olmoe", "dtype", R"("bfloat16")")).torch_dtype == "bfloat16");
  CHECK(parse(with("olmoe", "attention_bias", "false")).hidden_size == 64);
  CHECK(parse(with("olmoe", "num_key_value_heads", "2")).num_key_value_heads == 2);
  CHECK(parse(with("olmoe", "some_future_key", "3")).hidden_size == 64);
  Json uneven = with("mixtral", "head_dim", "20");
  uneven["hidden_size"] = 63;  // an explicit head width need not divide it
  CHECK(parse(uneven).head_dim == 20);
  Json alias = least("olmoe");
  alias.erase("num_experts");
  alias["num_local_experts"] = 6;
  CHECK(parse(alias).num_experts == 6);
}

TEST_CASE("every way of saying unscaled RoPE") {
  CHECK(parse(with("olmoe", "rope_theta", "32000")).rope_theta == 32000.0);
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    CHECK(parse(with("olmoe", key, "null")).rope_theta == 1e4);
    CHECK(parse(with("mixtral", key, "{}")).rope_theta == 1e6);
    CHECK(parse(with("olmoe", key, R"({"rope_type": "default"})")).rope_theta == 1e4);
    CHECK(parse(with("olmoe", key, R"({"type": "default"})")).rope_theta == 1e4);
    CHECK(parse(with("olmoe", key, R"({"rope_type": "default", "rope_theta": 500})")).rope_theta == 500.0);
    CHECK(parse(with("olmoe", key, R"({"partial_rotary_factor": 1.0})")).rope_theta == 1e4);
  }
  Json both = with("olmoe", "rope_theta", "7");
  both["rope_parameters"] = Json::parse(R"({"rope_theta": 500, "rope_type": "default"})");
  CHECK(parse(both).rope_theta == 500.0);  // transformers gives the nested one precedence
  both["rope_parameters"].erase("rope_theta");
  CHECK(parse(both).rope_theta == 7.0);
}

TEST_CASE("what perft does not compute is refused by file and key") {
  struct Case {
    const char* family;
    const char* key;
    const char* value;  // as in the file
    const char* message;
  };

  constexpr Case table[] = {
      {"olmoe", "model_type", R"("llama")",
       "model_type is \"llama\", only \"olmoe\" and \"mixtral\" are supported; use another checkpoint"},
      {"olmoe", "hidden_act", R"("gelu")",
       "hidden_act is \"gelu\", only \"silu\" is supported; use another checkpoint"},
      {"olmoe", "attention_bias", "true", "attention_bias is true, only false is supported; use another checkpoint"},
      {"olmoe", "attention_dropout", "0.1",
       "attention_dropout is not 0, only 0 is supported; set it to 0 if you accept training without it"},
      {"olmoe", "quantization_config", R"({"quant_method": "gptq"})",
       "quantization_config is set, only F32, BF16 and F16 weights are supported; use the unquantised checkpoint"},
      {"olmoe", "rope_scaling", R"({"type": "linear", "factor": 2.0})",
       "rope_scaling has type \"linear\", only unscaled RoPE (null or \"default\") is supported; use another "
       "checkpoint"},
      {"mixtral", "rope_parameters", R"({"rope_type": "yarn", "rope_theta": 1e4})",
       "rope_parameters has type \"yarn\", only unscaled RoPE (null or \"default\") is supported; use another "
       "checkpoint"},
      {"mixtral", "rope_parameters", R"({"partial_rotary_factor": 0.5})",
       "rope_parameters: partial_rotary_factor is 0.5, only 1 (the whole head) is supported; use another checkpoint"},
      {"mixtral", "partial_rotary_factor", "0.5",
       "partial_rotary_factor is 0.5, only 1 (the whole head) is supported; use another checkpoint"},
      {"olmoe", "sliding_window", "16", "sliding_window is set, which OLMoE does not have; set it to null"},
  };
  for (const Case& bad : table) {
    CHECK(io_test::message_of<UnsupportedError>([&] { parse(with(bad.family, bad.key, bad.value)); }) ==
          "c.json: " + std::string(bad.message));
  }
}

TEST_CASE("nonsense is refused by file and key") {
  struct Case {
    const char* family;
    const char* key;
    const char* value;  // as in the file
    const char* message;
  };

  constexpr Case table[] = {
      {"olmoe", "hidden_size", R"("64")", "hidden_size is \"64\", expected a whole number"},
      {"olmoe", "hidden_size", "0", "hidden_size is 0, expected 1 to 268435456"},
      {"olmoe", "hidden_size", "1099511627776", "hidden_size is 1099511627776, expected 1 to 268435456"},
      {"olmoe", "num_hidden_layers", "-1", "num_hidden_layers is -1, expected 1 to 268435456"},
      {"olmoe", "num_hidden_layers", "200000",
       "num_hidden_layers is 200000 with 8 experts each, expected at most 1000000 experts in all"},
      {"olmoe", "vocab_size", "160.5", "vocab_size is 160.5, expected a whole number"},
      {"olmoe", "intermediate_size", "true", "intermediate_size is true, expected a whole number"},
      {"olmoe", "num_attention_heads", "5",
       "num_attention_heads is 5, expected a divisor of hidden_size (64) where head_dim is not given"},
      {"olmoe", "num_key_value_heads", "3", "num_key_value_heads is 3, expected a divisor of num_attention_heads (4)"},
      {"olmoe", "num_key_value_heads", "0", "num_key_value_heads is 0, expected 1 to 268435456"},
      {"mixtral", "num_key_value_heads", "8",
       "num_key_value_heads is 8, expected a divisor of num_attention_heads (4)"},
      {"mixtral", "head_dim", "15", "head_dim is 15, expected an even number"},
      {"mixtral", "head_dim", "0", "head_dim is 0, expected 1 to 268435456"},
      {"mixtral", "hidden_size", "60", "head_dim is 15 (hidden_size / heads), expected an even number"},
      {"olmoe", "num_experts_per_tok", "9", "num_experts_per_tok is 9, expected 1 to 8"},
      {"olmoe", "num_experts_per_tok", "0", "num_experts_per_tok is 0, expected 1 to 8"},
      {"mixtral", "num_local_experts", "0", "num_local_experts is 0, expected 1 to 268435456"},
      {"olmoe", "max_position_embeddings", "0", "max_position_embeddings is 0, expected at least 1"},
      {"olmoe", "rope_theta", "0", "rope_theta is 0, expected a number above 0"},
      {"olmoe", "rope_theta", R"("1e4")", "rope_theta is \"1e4\", expected a number"},
      {"olmoe", "rope_scaling", R"("linear")", "rope_scaling is \"linear\", expected an object or null"},
      {"olmoe", "rope_parameters", R"({"rope_theta": -1})",
       "rope_parameters: rope_theta is -1, expected a number of at least 0"},
      {"olmoe", "rms_norm_eps", "0", "rms_norm_eps is 0, expected a number above 0"},
      {"olmoe", "norm_topk_prob", "1", "norm_topk_prob is 1, expected true or false"},
      {"olmoe", "clip_qkv", "0", "clip_qkv is 0, expected a number above 0"},
      {"mixtral", "sliding_window", "0", "sliding_window is 0, expected at least 1"},
      {"mixtral", "router_jitter_noise", "2", "router_jitter_noise is 2, expected a number from 0 to 1"},
      {"olmoe", "router_aux_loss_coef", R"("x")", "router_aux_loss_coef is \"x\", expected a number"},
      {"olmoe", "tie_word_embeddings", R"("no")", "tie_word_embeddings is \"no\", expected true or false"},
      {"olmoe", "attention_bias", "0", "attention_bias is 0, expected true or false"},
      {"olmoe", "hidden_act", "3", "hidden_act is 3, expected a string"},
      {"olmoe", "pad_token_id", "160", "pad_token_id is 160, expected an id below vocab_size (160)"},
      {"olmoe", "pad_token_id", "-1", "pad_token_id is -1, expected at least 0"},
      {"olmoe", "eos_token_id", R"("</s>")", "eos_token_id is \"</s>\", expected a whole number"},
      {"olmoe", "eos_token_id", "[2, -1]", "eos_token_id is -1, expected at least 0"},
      {"olmoe", "torch_dtype", "16", "torch_dtype is 16, expected a string"},
  };
  for (const Case& bad : table) {
    CHECK(io_test::message_of<IoError>([&] { parse(with(bad.family, bad.key, bad.value)); }) ==
          "c.json: " + std::string(bad.message) + "; correct the file");
  }
  for (const char* key : {"model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                          "num_experts", "num_experts_per_tok", "vocab_size"}) {
    Json json = least("olmoe");
    json.erase(key);
    const std::string what = std::string(key) == "model_type" ? "a string" : "a whole number";
    CHECK(io_test::message_of<IoError>([&] { parse(json); }) ==
          "c.json: " + std::string(key) + " is missing, expected " + what + "; add it");
  }
  CHECK_THROWS_WITH(parse(with("olmoe", "model_type", "null")),
                    "c.json: model_type is null, expected a string; add it");
  CHECK_THROWS_WITH(parse(with("olmoe", "num_experts", "null")),
                    "c.json: num_experts is null, expected a whole number; add it");
  CHECK_THROWS_WITH(parse(Json::array()),
                    "c.json: is not a JSON object, expected one; check that it is the right file");
}

TEST_CASE("load names the file as opened") {
  const io_test::TempFolder folder;
  CHECK_THROWS_WITH(ModelConfig::load(folder.path("config.json")),
                    folder.path("config.json") +
                        ": cannot open the file: No such file or directory; check the path and its permissions");
  CHECK_THROWS_WITH(ModelConfig::load(folder.write("config.json", "{,}")),
                    folder.path("config.json") + ": not valid JSON at byte 2; fix or replace the file");
  CHECK_THROWS_WITH(ModelConfig::load(folder.write("config.json", "{}")),
                    folder.path("config.json") + ": model_type is missing, expected a string; add it");
}

TEST_CASE("generation stops at generation_config.json's ids, else at config.json's") {
  const io_test::TempFolder folder;
  folder.write("config.json", with("olmoe", "eos_token_id", "3").dump());
  CHECK(read_eos_ids(folder.path()) == Ids{3});
  folder.write("generation_config.json", R"({"pad_token_id": 1})");
  CHECK(read_eos_ids(folder.path()) == Ids{3});
  folder.write("generation_config.json", R"({"eos_token_id": null})");
  CHECK(read_eos_ids(folder.path()) == Ids{3});
  folder.write("generation_config.json", R"({"eos_token_id": 5})");
  CHECK(read_eos_ids(folder.path()) == Ids{5});
  folder.write("generation_config.json", R"({"eos_token_id": [5, 7]})");
  CHECK(read_eos_ids(folder.path()) == Ids{5, 7});
  folder.write("generation_config.json", R"({"eos_token_id": "x"})");
  CHECK_THROWS_WITH(
      read_eos_ids(folder.path()),
      folder.path("generation_config.json") + ": eos_token_id is \"x\", expected a whole number; correct the file");
  folder.write("generation_config.json", "");
  CHECK_THROWS_WITH(read_eos_ids(folder.path()),
                    folder.path("generation_config.json") + ": not valid JSON at byte 1; fix or replace the file");
}

#pragma once
// adapter_config.json: an AdapterSpec with what it was trained on.

#include <cstdint>   // sizes
#include <optional>  // the base may be left unsaid
#include <string>    // names
#include <vector>    // notes

#include "perft/io/json.hpp"
#include "perft/io/json_fields.hpp"
#include "perft/io/mapped_file.hpp"  // read_text_file
#include "perft/peft/adapter_spec.hpp"

namespace perft::inline PERFT_ABI {

/// The base an adapter belongs to.
struct BaseFacts {
  std::string model_type;
  std::int64_t hidden_size = 0;
  std::int64_t num_hidden_layers = 0;
  std::int64_t vocab_size = 0;
  std::int64_t num_experts = 0;
};

struct AdapterConfig {
  AdapterSpec spec;
  std::string base_model_type;
  std::optional<BaseFacts> base;
  std::vector<std::string> notes;  // one line per key that is not known
};

inline OrderedJson adapter_config_json(const AdapterSpec& spec, const BaseFacts& base) {
  OrderedJson json;
  json["format"] = "perft-adapter";
  json["version"] = 1;
  json["base_model_type"] = base.model_type;
  json["base"] = {{"hidden_size", base.hidden_size},
                  {"num_hidden_layers", base.num_hidden_layers},
                  {"vocab_size", base.vocab_size},
                  {"num_experts", base.num_experts}};
  json["method"] = method_name(spec.method);
  json["delta"] = spec.delta == DeltaForm::kLora ? "lora" : "parallel";
  if (spec.ranks.empty()) {
    json["rank"] = spec.rank;
  } else {
    json["rank"] = spec.ranks;
  }
  json["alpha"] = spec.effective_alpha();
  json["experts"] = spec.experts;
  json["top_k"] = spec.top_k;
  json["dropout"] = spec.dropout;
  json["router_weights"] = spec.router_weights == RouterWeights::kOwn ? "own" : "authors-olmoe";
  json["targets"] = spec.targets;
  return json;
}

/// Reads and checks the file at `where`'s contents. Throws IoError naming the key for anything missing, of the wrong
/// type or without sense; unknown keys become notes.
inline AdapterConfig parse_adapter_config(const Json& json, const std::string& where) {
  const JsonFields fields(json, where);
  constexpr std::int64_t kMost = 1 << 20;
  const auto required_string = [&](const char* key) { return fields.string(key); };
  if (required_string("format") != "perft-adapter") {
    fields.reject("format", "is ", JsonFields::shown(*fields.find("format")), ", expected \"perft-adapter\"");
  }
  fields.integer("version", 1, 1);
  AdapterConfig config;
  config.base_model_type = required_string("base_model_type");
  AdapterSpec& spec = config.spec;
  const std::string method = required_string("method");
  bool known = false;
  for (const Method candidate : {Method::kPerftS, Method::kPerftD, Method::kPerftR, Method::kPerftE, Method::kLora}) {
    if (method == method_name(candidate)) {
      spec.method = candidate;
      known = true;
    }
  }
  if (!known) {
    fields.reject("method", "is ", in_quotes(method), ", expected perft-s, perft-d, perft-r, perft-e or lora");
  }
  const std::string delta = required_string("delta");
  if (delta != "lora" && delta != "parallel") {
    fields.reject("delta", "is ", in_quotes(delta), ", expected lora or parallel");
  }
  spec.delta = delta == "lora" ? DeltaForm::kLora : DeltaForm::kParallel;
  const Json* rank = fields.find("rank");
  if (rank != nullptr && rank->is_array()) {
    for (std::size_t layer = 0; layer < rank->size(); ++layer) {
      std::vector<std::int64_t> row;
      const Json& list = (*rank)[layer];
      if (!list.is_array()) {
        fields.reject("rank", "[", layer, "] is ", JsonFields::shown(list),
                      ", expected a list with a number per expert");
      }
      for (const Json& number : list) {
        if (!number.is_number_integer() || number.get<std::int64_t>() < 1 || number.get<std::int64_t>() > kMost) {
          fields.reject("rank", "[", layer, "] holds ", JsonFields::shown(number), ", expected numbers from 1 to ",
                        kMost);
        }
        row.push_back(number.get<std::int64_t>());
      }
      spec.ranks.push_back(std::move(row));
    }
    if (spec.ranks.empty()) {
      fields.reject("rank", "is an empty list, expected a number or one list per layer");
    }
  } else {
    spec.rank = fields.integer("rank", 1, kMost);
  }
  const std::optional<double> alpha = fields.positive_if("alpha");
  if (!alpha) {
    fields.reject("alpha", "is missing, expected a number above 0");
  }
  spec.alpha = *alpha;
  spec.experts = fields.integer("experts", 0, kMost);
  spec.top_k = fields.integer("top_k", 0, kMost);
  const std::optional<double> dropout = fields.number_if("dropout", 0.0, 1.0);
  if (!dropout || *dropout >= 1.0) {
    fields.reject("dropout", "is ", dropout ? "1" : "missing", ", expected a number in [0, 1)");
  }
  spec.dropout = *dropout;
  const std::string weights = required_string("router_weights");
  if (weights != "own" && weights != "authors-olmoe") {
    fields.reject("router_weights", "is ", in_quotes(weights), ", expected own or authors-olmoe");
  }
  spec.router_weights = weights == "own" ? RouterWeights::kOwn : RouterWeights::kAuthorsOlmoe;
  const Json* targets = fields.find("targets");
  if (targets == nullptr || !targets->is_array()) {
    fields.reject("targets", "is ", targets == nullptr ? "missing" : "not a list", ", expected a list of names");
  }
  for (const Json& target : *targets) {
    if (!target.is_string()) {
      fields.reject("targets", "holds ", JsonFields::shown(target), ", expected names");
    }
    spec.targets.push_back(target.get<std::string>());
  }
  if (const Json* base = fields.find("base")) {
    const JsonFields facts(*base, where + ": base");
    config.base =
        BaseFacts{config.base_model_type, facts.integer("hidden_size", 1), facts.integer("num_hidden_layers", 1),
                  facts.integer("vocab_size", 1), facts.integer("num_experts", 1)};
  }
  try {
    check_spec(spec);
  } catch (const ValueError& error) {
    fail<IoError>(where, ": ", error.what());
  }
  for (const auto& [key, value] : json.items()) {
    static constexpr std::array<std::string_view, 13> kKeys = {
        "format", "version", "base_model_type", "base",    "method",         "delta",  "rank",
        "alpha",  "experts", "top_k",           "dropout", "router_weights", "targets"};
    if (std::find(kKeys.begin(), kKeys.end(), key) == kKeys.end()) {
      config.notes.push_back(where + ": unknown key '" + key + "' is ignored");
    }
  }
  return config;
}

/// Reads and checks adapter_config.json of the folder `dir`. Throws IoError.
inline AdapterConfig read_adapter_config(const std::string& dir) {
  const std::string path = dir + "/adapter_config.json";
  return parse_adapter_config(parse_json_strict(read_text_file(path), path), path);
}

/// Throws IoError if the adapter was made for another base.
inline void check_base(const AdapterConfig& config, const BaseFacts& base, const std::string& where) {
  check<IoError>(config.base_model_type == base.model_type, where, ": base_model_type is ",
                 in_quotes(config.base_model_type), ", expected the model's ", in_quotes(base.model_type));
  const auto same = [&](const char* key, std::int64_t own, std::int64_t models) {
    check<IoError>(own == models, where, ": base: ", key, " is ", own, ", expected the model's ", models,
                   "; use the model the adapter was trained on");
  };
  if (config.base) {
    same("hidden_size", config.base->hidden_size, base.hidden_size);
    same("num_hidden_layers", config.base->num_hidden_layers, base.num_hidden_layers);
    same("vocab_size", config.base->vocab_size, base.vocab_size);
    same("num_experts", config.base->num_experts, base.num_experts);
  }
  if (!config.spec.ranks.empty()) {
    check<IoError>(static_cast<std::int64_t>(config.spec.ranks.size()) == base.num_hidden_layers, where, ": rank has ",
                   config.spec.ranks.size(), " layers, expected the model's ", base.num_hidden_layers);
    const std::int64_t experts = config.spec.experts_beside(base.num_experts);
    for (std::size_t layer = 0; layer < config.spec.ranks.size(); ++layer) {
      check<IoError>(static_cast<std::int64_t>(config.spec.ranks[layer].size()) == experts, where, ": rank[", layer,
                     "] has ", config.spec.ranks[layer].size(), " numbers, expected one per expert (", experts, ")");
    }
  }
}

/// read_adapter_config and check_base.
inline AdapterConfig read_adapter_config(const std::string& dir, const BaseFacts& base) {
  AdapterConfig config = read_adapter_config(dir);
  check_base(config, base, dir + "/adapter_config.json");
  return config;
}

}  // namespace perft::inline PERFT_ABI

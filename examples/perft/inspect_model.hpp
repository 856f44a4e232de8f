#pragma once
// What a model folder holds, from its headers alone: config.json and the headers of the safetensors files. No weight is
// read.

#include <algorithm>    // std::find
#include <array>        // roles
#include <cstdint>      // counts
#include <map>          // files
#include <string>       // names
#include <string_view>  // names
#include <vector>       // dtypes

#include "perft/io/hub_folder.hpp"
#include "perft/models/config.hpp"
#include "perft/models/tensor_table.hpp"

namespace perft::cli {

/// What a tensor is for.
inline constexpr std::array<const char*, 6> kRoles = {"embedding", "attention", "router", "experts", "norms", "head"};

/// Index into kRoles of a tensor of expected_tensors.
inline std::size_t role_of(std::string_view name) {
  const auto holds = [&](std::string_view part) { return name.find(part) != std::string_view::npos; };
  return name == "model.embed_tokens.weight" ? 0
         : name == "lm_head.weight"          ? 5
         : holds("norm.weight")              ? 4
         : holds(".experts.")                ? 3
         : holds(".self_attn.")              ? 1
                                             : 2;
}

struct RoleTotal {
  std::int64_t tensors = 0, parameters = 0, bytes = 0;
  std::vector<std::string> dtypes;  // in order of appearance
};

struct FileTotal {
  std::int64_t tensors = 0, bytes = 0;
};

struct ModelContents {
  ModelConfig config;
  std::array<RoleTotal, kRoles.size()> roles;  // tensors under hub names: one per expert matrix
  std::map<std::string, FileTotal> files;      // by path as opened; bytes of the whole file
  std::int64_t parameters = 0;
  std::int64_t active_parameters = 0;  // of one token: all but the N - K experts of each layer that it does not choose
  std::int64_t bytes = 0;              // of the parameters
};

/// Reads and checks `dir` as load_model does. Throws IoError and UnsupportedError as there.
inline ModelContents read_model_contents(const std::string& dir) {
  const HubFolder folder = HubFolder::open(dir);
  ModelContents contents;
  contents.config = ModelConfig::parse(folder.config_json(), folder.config_path());
  for (const TensorEntry& entry : folder.all()) {
    FileTotal& file = contents.files[entry.path];
    ++file.tensors;
    file.bytes = static_cast<std::int64_t>(entry.file->size());
  }
  const CheckpointTensors tensors = CheckpointTensors::open(folder, contents.config);
  for (const TensorEntry& entry : tensors.entries()) {
    RoleTotal& role = contents.roles[role_of(entry.name)];
    ++role.tensors;
    role.parameters += entry.elements();
    role.bytes += static_cast<std::int64_t>(entry.bytes);
    const std::string dtype(dtype_name(entry.dtype));
    if (std::find(role.dtypes.begin(), role.dtypes.end(), dtype) == role.dtypes.end()) {
      role.dtypes.push_back(dtype);
    }
  }
  for (const RoleTotal& role : contents.roles) {
    contents.parameters += role.parameters;
    contents.bytes += role.bytes;
  }
  const ModelConfig& c = contents.config;
  const std::int64_t experts = contents.roles[3].parameters;
  contents.active_parameters = contents.parameters - experts + experts / c.num_experts * c.num_experts_per_tok;
  return contents;
}

/// The model's part of the --json object.
inline OrderedJson model_json(const ModelContents& m) {
  const ModelConfig& c = m.config;
  OrderedJson json = {{"kind", "model"},
                      {"family", family_name(c.family)},
                      {"layers", c.num_hidden_layers},
                      {"hidden_size", c.hidden_size},
                      {"attention_heads", c.num_attention_heads},
                      {"key_value_heads", c.num_key_value_heads},
                      {"head_dim", c.head_dim},
                      {"experts", c.num_experts},
                      {"experts_per_token", c.num_experts_per_tok},
                      {"expert_width", c.intermediate_size},
                      {"vocab_size", c.vocab_size},
                      {"max_position_embeddings", c.max_position_embeddings},
                      {"tied_embeddings", c.tie_word_embeddings},
                      {"parameters", m.parameters},
                      {"active_parameters", m.active_parameters},
                      {"bytes", m.bytes},
                      {"roles", OrderedJson::array()},
                      {"files", OrderedJson::array()}};
  for (std::size_t r = 0; r < kRoles.size(); ++r) {
    const RoleTotal& role = m.roles[r];
    json["roles"].push_back({{"role", kRoles[r]},
                             {"tensors", role.tensors},
                             {"parameters", role.parameters},
                             {"bytes", role.bytes},
                             {"dtypes", role.dtypes}});
  }
  for (const auto& [path, file] : m.files) {
    json["files"].push_back({{"file", path}, {"tensors", file.tensors}, {"bytes", file.bytes}});
  }
  return json;
}

}  // namespace perft::cli

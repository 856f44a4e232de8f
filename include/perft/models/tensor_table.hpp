#pragma once
// Which tensors a checkpoint must hold, under which hub names, and a strict match of a folder against that.

#include <cstddef>        // std::size_t
#include <cstdint>        // std::int64_t
#include <string>         // names
#include <string_view>    // names
#include <unordered_map>  // name -> index
#include <utility>        // std::move
#include <vector>         // tables

#include "perft/core/dtype.hpp"
#include "perft/core/error.hpp"
#include "perft/io/hub_folder.hpp"
#include "perft/io/json.hpp"  // in_quotes
#include "perft/io/tensor_entry.hpp"
#include "perft/models/config.hpp"

namespace perft::inline PERFT_ABI {

struct TensorSpec {
  std::string name;
  std::vector<std::int64_t> shape;
};

/// The three matrices of an expert: down(silu(gate x) * up x).
enum class ExpertMatrix { gate, up, down };

/// "model.layers.<layer>."
inline std::string layer_prefix(std::int64_t layer) {
  return "model.layers." + std::to_string(layer) + ".";
}

/// "model.layers.<layer>.mlp." (OLMoE) or "….block_sparse_moe." (Mixtral)
inline std::string moe_prefix(Family family, std::int64_t layer) {
  return layer_prefix(layer) + (family == Family::olmoe ? "mlp." : "block_sparse_moe.");
}

/// The router's weight [N, D].
inline std::string router_name(Family family, std::int64_t layer) {
  return moe_prefix(family, layer) + "gate.weight";
}

/// One expert matrix: gate and up [F, D], down [D, F]. Mixtral's w1 is gate, w3 up, w2 down.
inline std::string expert_name(Family family, std::int64_t layer, std::int64_t expert, ExpertMatrix matrix) {
  const bool olmoe = family == Family::olmoe;
  const char* last = matrix == ExpertMatrix::gate ? (olmoe ? "gate_proj" : "w1")
                     : matrix == ExpertMatrix::up ? (olmoe ? "up_proj" : "w3")
                                                  : (olmoe ? "down_proj" : "w2");
  return moe_prefix(family, layer) + "experts." + std::to_string(expert) + "." + last + ".weight";
}

/// Every tensor of a checkpoint in the order transformers registers them, under hub names (one 2-D tensor per expert
/// matrix). q_norm [H·d] and k_norm [H_kv·d] are OLMoE's; lm_head.weight is absent when tied.
/// Source: transformers' modeling_olmoe.py and modeling_mixtral.py (4.x module tree, which hub files follow).
inline std::vector<TensorSpec> expected_tensors(const ModelConfig& c) {
  const std::int64_t D = c.hidden_size;
  const std::int64_t F = c.intermediate_size;
  const std::int64_t q_rows = c.num_attention_heads * c.head_dim;
  const std::int64_t kv_rows = c.num_key_value_heads * c.head_dim;
  std::vector<TensorSpec> specs;
  specs.push_back({"model.embed_tokens.weight", {c.vocab_size, D}});
  for (std::int64_t layer = 0; layer < c.num_hidden_layers; ++layer) {
    const std::string prefix = layer_prefix(layer);
    specs.push_back({prefix + "self_attn.q_proj.weight", {q_rows, D}});
    specs.push_back({prefix + "self_attn.k_proj.weight", {kv_rows, D}});
    specs.push_back({prefix + "self_attn.v_proj.weight", {kv_rows, D}});
    specs.push_back({prefix + "self_attn.o_proj.weight", {D, q_rows}});
    if (c.family == Family::olmoe) {
      specs.push_back({prefix + "self_attn.q_norm.weight", {q_rows}});
      specs.push_back({prefix + "self_attn.k_norm.weight", {kv_rows}});
    }
    specs.push_back({router_name(c.family, layer), {c.num_experts, D}});
    for (std::int64_t expert = 0; expert < c.num_experts; ++expert) {
      const TensorSpec gate{expert_name(c.family, layer, expert, ExpertMatrix::gate), {F, D}};
      const TensorSpec up{expert_name(c.family, layer, expert, ExpertMatrix::up), {F, D}};
      const TensorSpec down{expert_name(c.family, layer, expert, ExpertMatrix::down), {D, F}};
      specs.push_back(gate);
      if (c.family == Family::olmoe) {
        specs.push_back(up);
        specs.push_back(down);
      } else {  // w1, w2, w3
        specs.push_back(down);
        specs.push_back(up);
      }
    }
    specs.push_back({prefix + "input_layernorm.weight", {D}});
    specs.push_back({prefix + "post_attention_layernorm.weight", {D}});
  }
  specs.push_back({"model.norm.weight", {D}});
  if (!c.tie_word_embeddings) {
    specs.push_back({"lm_head.weight", {c.vocab_size, D}});
  }
  return specs;
}

/// A folder's tensors under the names of expected_tensors, each checked for shape and dtype (F32, BF16 or F16) and
/// present exactly once. Besides the hub's layout it takes transformers 5's: experts fused per layer
/// (`experts.gate_up_proj` [N, 2F, D], gate rows before up rows; `experts.down_proj` [N, D, F]), of which at() gives
/// per-expert views, and `mlp.` for `block_sparse_moe.` in Mixtral. Nothing is copied.
class CheckpointTensors {
 public:
  /// Throws IoError, naming file and tensor, for a tensor that is missing, unknown (save `*.rotary_emb.inv_freq` and a
  /// tied `lm_head.weight`, which are ignored), given twice, or of another shape or dtype than expected.
  static CheckpointTensors open(const HubFolder& folder, const ModelConfig& config) {
    CheckpointTensors result(config);
    for (const TensorEntry& entry : folder.all()) {
      result.take(entry, config);
    }
    result.check_complete(folder);
    return result;
  }

  /// The tensor of that hub name; ValueError if the model has none (a tied lm_head.weight included).
  const TensorEntry& at(const std::string& hub_name) const {
    const auto found = index_.find(hub_name);
    check<ValueError>(found != index_.end(), "tensor ", in_quotes(hub_name),
                      " is not one of this model's, expected a name of expected_tensors");
    return entries_[found->second];
  }

  /// What the model has, in hub order; entries()[i] is the tensor of specs()[i].
  const std::vector<TensorSpec>& specs() const { return specs_; }

  const std::vector<TensorEntry>& entries() const { return entries_; }

 private:
  explicit CheckpointTensors(const ModelConfig& config) : specs_(expected_tensors(config)), entries_(specs_.size()) {
    for (std::size_t i = 0; i < specs_.size(); ++i) {
      index_.emplace(specs_[i].name, i);
    }
    for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
      const std::string experts = moe_prefix(config.family, layer) + "experts.";
      fused_.emplace(experts + "gate_up_proj", layer);
      fused_.emplace(experts + "down_proj", layer);
    }
  }

  void take(const TensorEntry& entry, const ModelConfig& config) {
    const std::string name = hub_spelling(entry.name, config.family);
    if (const auto found = index_.find(name); found != index_.end()) {
      check_form(entry, specs_[found->second].shape);
      store(found->second, entry, entry);
    } else if (const auto fused = fused_.find(name); fused != fused_.end()) {
      split(entry, name.ends_with("gate_up_proj"), fused->second, config);
    } else {
      const bool ignored =
          name.ends_with(".rotary_emb.inv_freq") || (config.tie_word_embeddings && name == "lm_head.weight");
      check<IoError>(ignored, entry.path, ": tensor ", in_quotes(entry.name), " is unknown, expected only those of ",
                     family_name(config.family), " with ", config.num_hidden_layers, " layers and ", config.num_experts,
                     " experts; check config.json");
    }
  }

  /// transformers 5 names Mixtral's block `mlp`, as OLMoE's.
  static std::string hub_spelling(const std::string& name, Family family) {
    constexpr std::string_view layers = "model.layers.";
    constexpr std::string_view mlp = ".mlp.";
    if (family == Family::mixtral && name.starts_with(layers)) {
      const std::size_t after_number = name.find_first_not_of("0123456789", layers.size());
      if (after_number != std::string::npos && name.compare(after_number, mlp.size(), mlp) == 0) {
        return name.substr(0, after_number) + ".block_sparse_moe." + name.substr(after_number + mlp.size());
      }
    }
    return name;
  }

  static void check_form(const TensorEntry& entry, const std::vector<std::int64_t>& shape) {
    check<IoError>(entry.shape == shape, entry.path, ": tensor ", in_quotes(entry.name), " has shape ", entry.shape,
                   ", expected ", shape, " from config.json; check that both belong together");
    check<IoError>(entry.dtype == DType::f32 || entry.dtype == DType::bf16 || entry.dtype == DType::f16, entry.path,
                   ": tensor ", in_quotes(entry.name), " has dtype ", dtype_name(entry.dtype),
                   ", expected F32, BF16 or F16 ", shape, "; convert the checkpoint");
  }

  /// Cuts a fused tensor into per-expert views.
  void split(const TensorEntry& entry, bool gate_up, std::int64_t layer, const ModelConfig& c) {
    const std::int64_t D = c.hidden_size;
    const std::int64_t F = c.intermediate_size;
    check_form(entry, gate_up ? std::vector<std::int64_t>{c.num_experts, 2 * F, D}
                              : std::vector<std::int64_t>{c.num_experts, D, F});
    const std::size_t bytes = entry.bytes / static_cast<std::size_t>(c.num_experts) / (gate_up ? 2 : 1);
    const std::byte* data = entry.data;
    for (std::int64_t expert = 0; expert < c.num_experts; ++expert) {
      for (const ExpertMatrix matrix : {ExpertMatrix::gate, ExpertMatrix::up, ExpertMatrix::down}) {
        if ((matrix == ExpertMatrix::down) == gate_up) {
          continue;
        }
        const std::size_t at = index_.at(expert_name(c.family, layer, expert, matrix));
        TensorEntry view = entry;
        view.shape = specs_[at].shape;
        view.data = data;
        view.bytes = bytes;
        store(at, std::move(view), entry);
        data += bytes;
      }
    }
  }

  void store(std::size_t at, TensorEntry view, const TensorEntry& source) {
    check<IoError>(entries_[at].file == nullptr, source.path, ": tensor ", in_quotes(source.name), " gives ",
                   specs_[at].name, " a second time, expected it once; remove one of the two layouts");
    view.name = specs_[at].name;
    entries_[at] = std::move(view);
  }

  void check_complete(const HubFolder& folder) const {
    std::size_t missing = 0;
    std::size_t first = 0;
    for (std::size_t i = specs_.size(); i-- > 0;) {
      if (entries_[i].file == nullptr) {
        ++missing;
        first = i;
      }
    }
    if (missing > 0) {
      fail<IoError>(folder.weights_path(), ": tensor ", in_quotes(specs_[first].name), " is missing",
                    missing > 1 ? " (and " + std::to_string(missing - 1) + " more)" : std::string(),
                    ", expected shape ", specs_[first].shape, "; check config.json or download the weights again");
    }
  }

  std::vector<TensorSpec> specs_;
  std::vector<TensorEntry> entries_;                     // parallel to specs_; file is null until found
  std::unordered_map<std::string, std::size_t> index_;   // hub name -> index into both
  std::unordered_map<std::string, std::int64_t> fused_;  // hub spelling of a fused tensor -> layer
};

}  // namespace perft::inline PERFT_ABI

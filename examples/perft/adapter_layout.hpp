#pragma once
// Which tensors an adapter_config.json calls for, without a model: their names, ranks and widths.

#include <algorithm>    // std::max
#include <array>        // widths
#include <charconv>     // numbers in names
#include <cstdint>      // sizes
#include <string>       // names
#include <string_view>  // marks in names
#include <vector>       // shapes

#include "perft/io/safetensors.hpp"
#include "perft/peft/adapter_config.hpp"

namespace perft::cli {

/// A (W1), B (W2), or PERFT-R's router.
enum class AdapterPart { down, up, router };

/// What a matrix's long side is as wide as.
enum class AdapterWidth { hidden, experts, inner, queries, keys };

struct AdapterMatrix {
  std::string name;
  std::int64_t layer = 0;
  std::string place;  // "mlp.perft", "self_attn.q_proj", "mlp.experts.up_proj": without the expert's number
  AdapterPart part = AdapterPart::down;
  std::int64_t rank = 0;                      // the router's: its experts
  AdapterWidth width = AdapterWidth::hidden;  // down and router [rank, width], up [width, rank]
};

/// The widths of the base: those that adapter_config.json says, and the others as the first matrix of each has them.
class AdapterWidths {
 public:
  explicit AdapterWidths(const BaseFacts& base) {
    of(AdapterWidth::hidden) = base.hidden_size;
    of(AdapterWidth::experts) = base.num_experts;
  }

  /// The shape `matrix` must have. `found` is the file's, which decides a width that is not known yet.
  std::vector<std::int64_t> shape_of(const AdapterMatrix& matrix, const std::vector<std::int64_t>& found) {
    const bool up = matrix.part == AdapterPart::up;
    std::int64_t& width = of(matrix.width);
    if (width == 0) {
      width = found.size() == 2 ? std::max<std::int64_t>(1, found[up ? 0 : 1]) : 1;
    }
    return up ? std::vector{width, matrix.rank} : std::vector{matrix.rank, width};
  }

 private:
  std::int64_t& of(AdapterWidth width) { return known_[static_cast<std::size_t>(width)]; }

  std::array<std::int64_t, 5> known_{};  // 0: not known
};

namespace detail {

/// The number after the first `mark` in `name`, or −1.
inline std::int64_t number_after(std::string_view name, std::string_view mark) {
  const std::size_t at = name.find(mark);
  std::int32_t number = -1;  // a larger one stays −1: no model has so many of anything
  if (at != std::string_view::npos) {
    std::from_chars(name.data() + at + mark.size(), name.data() + name.size(), number);
  }
  return number;
}

/// Where method lora adapts a role, and what it lies between.
struct LoraPlace {
  std::string_view role, slot;
  AdapterWidth in, out;
};

inline constexpr std::array<LoraPlace, kLoraTargets.size()> kLoraPlaces = {
    {{"q_proj", "self_attn.", AdapterWidth::hidden, AdapterWidth::queries},
     {"k_proj", "self_attn.", AdapterWidth::hidden, AdapterWidth::keys},
     {"v_proj", "self_attn.", AdapterWidth::hidden, AdapterWidth::keys},
     {"o_proj", "self_attn.", AdapterWidth::queries, AdapterWidth::hidden},
     {"gate", "mlp.", AdapterWidth::hidden, AdapterWidth::experts},
     {"gate_proj", "mlp.experts.", AdapterWidth::hidden, AdapterWidth::inner},
     {"up_proj", "mlp.experts.", AdapterWidth::hidden, AdapterWidth::inner},
     {"down_proj", "mlp.experts.", AdapterWidth::inner, AdapterWidth::hidden}}};

}  // namespace detail

/// The base as far as the adapter knows it: what adapter_config.json says, or else layers and experts as many as its
/// ranks or its tensors' names have, and sizes 0 (not known).
inline BaseFacts base_of(const AdapterConfig& config, const SafetensorsFile& file) {
  if (config.base) {
    return *config.base;
  }
  const AdapterSpec& spec = config.spec;
  std::int64_t layers = 0;
  std::int64_t experts = 0;
  for (const TensorEntry& entry : file.tensors()) {
    layers = std::max(layers, detail::number_after(entry.name, "model.layers.") + 1);
    experts = std::max(experts, detail::number_after(entry.name, ".experts.") + 1);
  }
  BaseFacts base;
  base.model_type = config.base_model_type;
  base.num_hidden_layers = spec.ranks.empty() ? std::max<std::int64_t>(1, layers) : std::ssize(spec.ranks);
  base.num_experts = spec.method == perft::Method::kPerftE && spec.experts > 0 ? spec.experts
                     : spec.ranks.empty()                                      ? experts
                                                                               : std::ssize(spec.ranks.front());
  return base;
}

/// Calls f(AdapterMatrix) for every matrix, layer by layer. `spec.ranks` must fit `base` (check_base).
template <class F>
void for_each_matrix(const AdapterSpec& spec, const BaseFacts& base, const F& f) {
  const bool lora_form = spec.delta == DeltaForm::kLora;
  for (std::int64_t layer = 0; layer < base.num_hidden_layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    const auto pair = [&](const std::string& slot, const std::string& place, std::int64_t expert, AdapterWidth in,
                          AdapterWidth out) {
      const std::int64_t rank = spec.rank_of(layer, expert);
      f({prefix + slot + (lora_form ? ".lora_A" : ".w1") + ".weight", layer, place, AdapterPart::down, rank, in});
      f({prefix + slot + (lora_form ? ".lora_B" : ".w2") + ".weight", layer, place, AdapterPart::up, rank, out});
    };
    if (spec.method != perft::Method::kLora) {
      for (std::int64_t e = 0; e < spec.experts_beside(base.num_experts); ++e) {
        pair("mlp.perft.experts." + std::to_string(e), "mlp.perft", e, AdapterWidth::hidden, AdapterWidth::hidden);
      }
    }
    if (spec.method == perft::Method::kPerftR) {
      f({prefix + "mlp.perft.router.weight", layer, "mlp.perft", AdapterPart::router, spec.experts,
         AdapterWidth::hidden});
    }
    for (const detail::LoraPlace& at : detail::kLoraPlaces) {
      if (!spec.targets_role(at.role)) {
        continue;
      }
      const std::string slot(at.slot);
      const std::string role(at.role);
      const bool in_experts = at.slot == "mlp.experts.";
      for (std::int64_t e = 0; e < (in_experts ? base.num_experts : 1); ++e) {
        pair(in_experts ? slot + std::to_string(e) + "." + role : slot + role, slot + role, e, at.in, at.out);
      }
    }
  }
}

}  // namespace perft::cli

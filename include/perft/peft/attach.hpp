#pragma once
// attach / detach: composition over a model's slots. Works on anything with visit(Visitor<C, Device>&).

#include <algorithm>    // std::max
#include <charconv>     // layer numbers
#include <cstdint>      // seeds
#include <memory>       // slots
#include <optional>     // no seed
#include <set>          // roles that matched
#include <string>       // paths
#include <string_view>  // prefixes
#include <utility>      // std::move

#include "perft/peft/lora.hpp"
#include "perft/peft/perft_block.hpp"

namespace perft::inline PERFT_ABI {

namespace detail {

/// "model.layers.12.mlp.gate" -> 12. Throws ValueError for a slot that hangs under no layer.
inline std::int64_t layer_of(const std::string& path) {
  constexpr std::string_view prefix = "model.layers.";
  std::int64_t layer = -1;
  if (path.starts_with(prefix)) {
    std::from_chars(path.data() + prefix.size(), path.data() + path.size(), layer);
  }
  check<ValueError>(layer >= 0, "adapter: slot '", path, "' hangs under no layer, expected model.layers.<number>.…");
  return layer;
}

inline std::string role_of(const std::string& path) {
  return path.substr(path.rfind('.') + 1);
}

/// Whether a LoRA spec names any of an expert's matrices.
inline bool targets_experts(const AdapterSpec& spec) {
  return spec.targets_role("gate_proj") || spec.targets_role("up_proj") || spec.targets_role("down_proj");
}

/// What attaching would match, without touching a slot; throws if a slot cannot carry the adapter.
template <ComputeType C, class Device = Cpu>
class MatchVisitor final : public Visitor<C, Device> {
 public:
  explicit MatchVisitor(const AdapterSpec& spec) : spec_(spec) {}

  void linear_slot(const std::string& path, std::unique_ptr<LinearSlot<C, Device>>& slot) override {
    roles.insert(role_of(path));
    if (spec_.targets_role(role_of(path))) {
      check_slot(path, slot->adapted(), std::nullopt);
    }
  }

  void experts_slot(const std::string& path, std::unique_ptr<ExpertsSlot<C, Device>>& slot) override {
    roles.insert({"gate_proj", "up_proj", "down_proj"});
    if (targets_experts(spec_)) {
      check_slot(path, slot->adapted(), static_cast<std::int64_t>(slot->table().size()));
    }
  }

  void moe_slot(const std::string& path, std::unique_ptr<MoeBlock<C, Device>>& slot) override {
    if (spec_.method != Method::kLora) {
      PerftBlock<C, Device>::check_fits(spec_, slot->shape());
      check_slot(path, slot->adapted(), spec_.experts_beside(slot->shape().experts));
    }
    ++blocks;
  }

  std::set<std::string> roles;
  std::int64_t blocks = 0;
  std::int64_t layers = 0;  // one past the last that is matched

 private:
  /// `experts`: how many ranks the layer must list; a linear slot takes the first.
  void check_slot(const std::string& path, bool adapted, std::optional<std::int64_t> experts) {
    const std::int64_t layer = layer_of(path);
    layers = std::max(layers, layer + 1);
    check<ValueError>(!adapted, "adapter: ", path,
                      " carries an adapter already, expected none; detach it first, or name all targets at once");
    if (layer < static_cast<std::int64_t>(spec_.ranks.size())) {
      const auto given = static_cast<std::int64_t>(spec_.ranks[static_cast<std::size_t>(layer)].size());
      check<ValueError>(given == experts.value_or(std::max<std::int64_t>(given, 1)), "adapter: ", given, " ranks for ",
                        path, ", expected ", experts.value_or(1));
    }
  }

  const AdapterSpec& spec_;
};

template <ComputeType C, class Device = Cpu>
class AttachVisitor final : public Visitor<C, Device> {
 public:
  AttachVisitor(const AdapterSpec& spec, double initializer_range, std::optional<std::uint64_t> seed)
      : spec_(spec), initializer_range_(initializer_range), seed_(seed) {}

  void linear_slot(const std::string& path, std::unique_ptr<LinearSlot<C, Device>>& slot) override {
    const std::string role = role_of(path);
    if (spec_.targets_role(role)) {
      std::uint64_t site = 2;  // dropout sites 2 … 9: one per role
      while (kLoraTargets[site - 2] != role) {
        ++site;
      }
      slot = std::make_unique<LoraLinear<C, Device>>(slot, path, spec_, layer_of(path), site, seed_);
    }
  }

  void experts_slot(const std::string& path, std::unique_ptr<ExpertsSlot<C, Device>>& slot) override {
    if (targets_experts(spec_)) {
      slot = std::make_unique<LoraExperts<C, Device>>(slot, path, spec_, layer_of(path), seed_);
    }
  }

  void moe_slot(const std::string& path, std::unique_ptr<MoeBlock<C, Device>>& slot) override {
    if (spec_.method != Method::kLora) {
      slot = std::make_unique<PerftBlock<C, Device>>(slot, path, spec_, layer_of(path), initializer_range_, seed_);
    }
  }

 private:
  const AdapterSpec& spec_;
  double initializer_range_;
  std::optional<std::uint64_t> seed_;
};

template <ComputeType C, class Device = Cpu>
class DetachVisitor final : public Visitor<C, Device> {
 public:
  void linear_slot(const std::string&, std::unique_ptr<LinearSlot<C, Device>>& slot) override { unwrap(slot); }

  void experts_slot(const std::string&, std::unique_ptr<ExpertsSlot<C, Device>>& slot) override { unwrap(slot); }

  void moe_slot(const std::string&, std::unique_ptr<MoeBlock<C, Device>>& slot) override { unwrap(slot); }

 private:
  template <class Slot>
  static void unwrap(std::unique_ptr<Slot>& slot) {
    while (std::unique_ptr<Slot> base = slot->release_base()) {
      slot = std::move(base);
    }
  }
};

template <ComputeType C, class Device = Cpu, class Model>
void attach_checked(Model& model, const AdapterSpec& spec, double initializer_range,
                    std::optional<std::uint64_t> seed) {
  check_spec(spec);
  MatchVisitor<C, Device> match(spec);
  model.visit(match);
  for (const std::string& target : spec.targets) {
    check<ValueError>(match.roles.count(target) > 0, "adapter: LoRA target '", target,
                      "' matches nothing in this model, expected some of ", kLoraTargets);
  }
  check<ValueError>(spec.method == Method::kLora || match.blocks > 0, "adapter: the model has no MoE block");
  check<ValueError>(spec.ranks.empty() || static_cast<std::int64_t>(spec.ranks.size()) == match.layers,
                    "adapter: ranks of ", spec.ranks.size(), " layers, expected the model's ", match.layers);
  AttachVisitor<C, Device> visitor(spec, initializer_range, seed);
  model.visit(visitor);
}

}  // namespace detail

/// Wraps the slots the spec names; the new parameters are trainable and hold their published initial values (a function
/// of seed and name). Throws ValueError, before any slot is touched, if the spec makes no sense, a slot cannot carry it
/// (ranks for another number of layers or experts, an adapter on it already), or a target matches nothing in the model.
/// LoRA on attention, on the router, on the experts and a PERFT block can be attached one after another.
template <ComputeType C, class Device = Cpu, class Model>
void attach(Model& model, const AdapterSpec& spec, double initializer_range, std::uint64_t seed) {
  detail::attach_checked<C, Device>(model, spec, initializer_range, seed);
}

/// attach() with zeros in all new parameters: for whoever fills them, as load_adapter does.
template <ComputeType C, class Device = Cpu, class Model>
void attach_zeros(Model& model, const AdapterSpec& spec) {
  detail::attach_checked<C, Device>(model, spec, 0.0, std::nullopt);
}

/// Takes every adapter off: the model's slots are again what they were, and so are its logits, bit for bit.
template <ComputeType C, class Device = Cpu, class Model>
void detach(Model& model) {
  detail::DetachVisitor<C, Device> visitor;
  model.visit(visitor);
}

}  // namespace perft::inline PERFT_ABI

#pragma once
// attach / detach: composition over a model's slots. Works on anything with visit(Visitor<C>&).

#include <cstdint>  // seeds
#include <memory>   // slots
#include <set>      // roles that matched
#include <string>   // paths
#include <utility>  // std::move

#include "perft/peft/lora.hpp"
#include "perft/peft/perft_block.hpp"

namespace perft::inline PERFT_ABI {

namespace detail {

/// "model.layers.12.mlp.gate" -> 12; every slot of a decoder hangs under one.
inline std::int64_t layer_of(const std::string& path) {
  const std::string prefix = "model.layers.";
  return std::stoll(path.substr(prefix.size()));
}

/// What attaching would match, without touching a slot; throws if a block cannot carry the adapter.
template <ComputeType C>
class MatchVisitor final : public Visitor<C> {
 public:
  explicit MatchVisitor(const AdapterSpec& spec) : spec_(spec) {}

  void linear_slot(const std::string& path, std::unique_ptr<LinearSlot<C>>&) override {
    roles.insert(path.substr(path.rfind('.') + 1));
  }

  void experts_slot(const std::string&, std::unique_ptr<ExpertsSlot<C>>&) override {
    roles.insert({"gate_proj", "up_proj", "down_proj"});
  }

  void moe_slot(const std::string&, std::unique_ptr<MoeBlock<C>>& slot) override {
    if (spec_.method != Method::kLora) {
      PerftBlock<C>::check_fits(spec_, slot->shape());
    }
    ++blocks;
  }

  std::set<std::string> roles;
  std::int64_t blocks = 0;

 private:
  const AdapterSpec& spec_;
};

template <ComputeType C>
class AttachVisitor final : public Visitor<C> {
 public:
  AttachVisitor(const AdapterSpec& spec, double initializer_range, std::uint64_t seed)
      : spec_(spec), initializer_range_(initializer_range), seed_(seed) {}

  void linear_slot(const std::string& path, std::unique_ptr<LinearSlot<C>>& slot) override {
    const std::string role = path.substr(path.rfind('.') + 1);
    if (spec_.method == Method::kLora && spec_.targets_role(role)) {
      std::uint64_t site = 2;  // dropout sites 2 … 9: one per role
      while (kLoraTargets[site - 2] != role) {
        ++site;
      }
      slot = std::make_unique<LoraLinear<C>>(std::move(slot), path, spec_, layer_of(path), site, seed_);
    }
  }

  void experts_slot(const std::string& path, std::unique_ptr<ExpertsSlot<C>>& slot) override {
    bool any = false;
    for (const char* role : {"gate_proj", "up_proj", "down_proj"}) {
      if (spec_.targets_role(role)) {
        any = true;
      }
    }
    if (any) {
      slot = std::make_unique<LoraExperts<C>>(std::move(slot), path, spec_, layer_of(path), seed_);
    }
  }

  void moe_slot(const std::string& path, std::unique_ptr<MoeBlock<C>>& slot) override {
    if (spec_.method != Method::kLora) {
      slot = std::make_unique<PerftBlock<C>>(std::move(slot), path, spec_, layer_of(path), initializer_range_, seed_);
    }
  }

 private:
  const AdapterSpec& spec_;
  double initializer_range_;
  std::uint64_t seed_;
};

template <ComputeType C>
class DetachVisitor final : public Visitor<C> {
 public:
  void linear_slot(const std::string&, std::unique_ptr<LinearSlot<C>>& slot) override { unwrap(slot); }

  void experts_slot(const std::string&, std::unique_ptr<ExpertsSlot<C>>& slot) override { unwrap(slot); }

  void moe_slot(const std::string&, std::unique_ptr<MoeBlock<C>>& slot) override { unwrap(slot); }

 private:
  template <class Slot>
  static void unwrap(std::unique_ptr<Slot>& slot) {
    while (std::unique_ptr<Slot> base = slot->release_base()) {
      slot = std::move(base);
    }
  }
};

}  // namespace detail

/// Wraps the slots the spec names; the new parameters are trainable and hold their published initial values (a function
/// of seed and name). Throws ValueError, before any slot is touched, if the spec makes no sense, a block cannot carry
/// it, or a target matches nothing in the model.
template <ComputeType C, class Model>
void attach(Model& model, const AdapterSpec& spec, double initializer_range, std::uint64_t seed) {
  check_spec(spec);
  detail::MatchVisitor<C> match(spec);
  model.visit(match);
  for (const std::string& target : spec.targets) {
    check<ValueError>(match.roles.count(target) > 0, "adapter: LoRA target '", target,
                      "' matches nothing in this model, expected some of ", kLoraTargets);
  }
  check<ValueError>(spec.method == Method::kLora || match.blocks > 0, "adapter: the model has no MoE block");
  detail::AttachVisitor<C> visitor(spec, initializer_range, seed);
  model.visit(visitor);
}

/// Takes every adapter off: the model's slots are again what they were, and so are its logits, bit for bit.
template <ComputeType C, class Model>
void detach(Model& model) {
  detail::DetachVisitor<C> visitor;
  model.visit(visitor);
}

}  // namespace perft::inline PERFT_ABI

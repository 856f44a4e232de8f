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
      matched.insert(role);
    }
  }

  void experts_slot(const std::string& path, std::unique_ptr<ExpertsSlot<C>>& slot) override {
    bool any = false;
    for (const char* role : {"gate_proj", "up_proj", "down_proj"}) {
      if (spec_.targets_role(role)) {
        matched.insert(role);
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
      ++blocks;
    }
  }

  std::set<std::string> matched;
  std::int64_t blocks = 0;

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
/// of seed and name). Throws ValueError if the spec makes no sense or a target matches nothing in the model.
template <ComputeType C, class Model>
void attach(Model& model, const AdapterSpec& spec, double initializer_range, std::uint64_t seed) {
  check_spec(spec);
  detail::AttachVisitor<C> visitor(spec, initializer_range, seed);
  model.visit(visitor);
  for (const std::string& target : spec.targets) {
    check<ValueError>(visitor.matched.count(target) > 0, "adapter: LoRA target '", target,
                      "' matches nothing in this model, expected some of ", kLoraTargets);
  }
  check<ValueError>(spec.method == Method::kLora || visitor.blocks > 0, "adapter: the model has no MoE block");
}

/// Takes every adapter off: the model's slots are again what they were, and so are its logits, bit for bit.
template <ComputeType C, class Model>
void detach(Model& model) {
  detail::DetachVisitor<C> visitor;
  model.visit(visitor);
}

}  // namespace perft::inline PERFT_ABI

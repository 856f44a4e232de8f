#pragma once
// The routers of a run over time: what metrics.jsonl and report.html show of them, and the alarms.

#include <cstdint>  // steps
#include <string>   // alarms
#include <vector>   // lines

#include "perft/train/lost_updates.hpp"
#include "perft/train/metrics.hpp"
#include "perft/train/trainer.hpp"

namespace perft::cli {

/// Adds up the routers' choices over windows of steps.
class RouterWatch {
 public:
  /// `base_trained`, `adapter_top_k`: which routers can collapse, because they are trained (0: no adapter router).
  RouterWatch(std::int64_t total_steps, std::int64_t base_top_k, bool base_trained, std::int64_t adapter_top_k);

  void add(const StepResult& result);

  /// Whether `step` ends a window (or the run).
  bool due(std::int64_t step, std::int64_t total_steps) const;

  /// The window's lines of metrics.jsonl, one per kind of router and one per alarm; starts a new window.
  /// A router's line: step, router ("base", "adapter"), window_steps, and per layer entropy, dead and busiest
  /// (ExpertLoad), and load: of every expert of every layer, relative to the layer's mean. An alarm's: step, kind,
  /// alarm (the text). `lost`: of the window's steps.
  std::vector<std::vector<MetricField>> take(std::int64_t step, const LostShare& lost);

 private:
  struct Router {
    const char* name;
    std::int64_t top_k;  // 0: not trained, raises no alarm
    RouterUse use;
  };

  std::int64_t window_;
  std::int64_t steps_ = 0;
  std::vector<Router> routers_;
};

}  // namespace perft::cli

// The routers of a run over time.

#include "router_watch.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>  // std::max
#include <cmath>      // std::round

namespace perft::cli {

namespace {

constexpr std::int64_t kWindows = 60;     // columns of a heatmap
constexpr double kLostAlarm = 0.5;        // share of updates that rounding swallows
constexpr std::int64_t kFewChoices = 32;  // per expert: fewer say nothing about collapse

double thousandths(double value) {
  return std::round(value * 1000) / 1000;
}

}  // namespace

RouterWatch::RouterWatch(std::int64_t total_steps, std::int64_t base_top_k, bool base_trained,
                         std::int64_t adapter_top_k)
    : window_(std::max<std::int64_t>(1, total_steps / kWindows)),
      routers_{{"base", base_trained ? base_top_k : 0, {}}, {"adapter", adapter_top_k, {}}} {}

void RouterWatch::add(const StepResult& result) {
  routers_[0].use.add(result.base_use);
  routers_[1].use.add(result.adapter_use);
  ++steps_;
}

bool RouterWatch::due(std::int64_t step, std::int64_t total_steps) const {
  return step % window_ == 0 || step == total_steps;
}

std::vector<std::vector<MetricField>> RouterWatch::take(std::int64_t step, const LostShare& lost) {
  std::vector<std::vector<MetricField>> lines;
  for (Router& router : routers_) {
    const std::vector<ExpertLoad>& layers = router.use.layers();
    if (layers.empty()) {
      continue;
    }
    std::vector<double> entropy;
    std::vector<double> dead;
    std::vector<double> busiest;
    std::vector<double> load;
    for (const ExpertLoad& layer : layers) {
      entropy.push_back(thousandths(layer.entropy()));
      dead.push_back(static_cast<double>(layer.dead()));
      busiest.push_back(thousandths(layer.busiest()));
      const double mean = static_cast<double>(layer.choices()) / static_cast<double>(layer.counts.size());
      for (const std::int64_t count : layer.counts) {
        load.push_back(mean > 0 ? thousandths(static_cast<double>(count) / mean) : 0.0);
      }
    }
    lines.push_back({{"step", step},
                     {"router", std::string(router.name)},
                     {"window_steps", steps_},
                     {"entropy", entropy},
                     {"dead", dead},
                     {"busiest", busiest},
                     {"load", load}});
    const ExpertLoad& first = layers.front();
    if (router.top_k > 0 && first.choices() >= kFewChoices * static_cast<std::int64_t>(first.counts.size())) {
      if (const std::vector<std::int64_t> collapsed = router.use.collapsed(router.top_k); !collapsed.empty()) {
        lines.push_back(
            {{"step", step},
             {"kind", std::string(router.name) + " router"},
             {"alarm",
              fmt::format("the {} router has collapsed in {} of {} layers ({}): no more than {} of {} experts are in "
                          "use; raise --aux-coef or lower --lr",
                          router.name, collapsed.size(), layers.size(), fmt::join(collapsed, ", "), router.top_k,
                          first.counts.size())}});
      }
    }
    router.use.clear();
  }
  if (lost.share > kLostAlarm) {
    lines.push_back(
        {{"step", step},
         {"kind", std::string("rounding")},
         {"alarm", fmt::format("{:.0f} % of the updates of {} are lost to rounding: they are below half a unit in "
                               "the last place; raise --lr or give --router-dtype f32",
                               100 * lost.share, lost.name)}});
  }
  steps_ = 0;
  return lines;
}

}  // namespace perft::cli

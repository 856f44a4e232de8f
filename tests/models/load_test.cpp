// Loading copies no base weight, whatever the file and the model compute in: every matrix lies in the file's mapping,
// and what is allocated is the norm vectors.

#include <catch2/catch.hpp>
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "models/support/cases.hpp"
#include "models/support/engine.hpp"
#include "perft/core/pool.hpp"
#include "perft/models/causal_lm.hpp"

using namespace models_test;

namespace {

struct Range {
  std::uintptr_t begin = 0, end = 0;
};

/// Where this process has mapped files below `folder`, as the kernel says.
std::vector<Range> mappings(const std::string& folder) {
  std::vector<Range> found;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find(folder) == std::string::npos) continue;
    const std::size_t dash = line.find('-');
    found.push_back({std::stoull(line.substr(0, dash), nullptr, 16), std::stoull(line.substr(dash + 1), nullptr, 16)});
  }
  return found;
}

template <class C>
struct Survey final : perft::Visitor<C> {
  std::vector<Range> mapped;
  std::size_t matrices = 0, outside = 0, vector_bytes = 0;

  void weight(perft::Weight<perft::Param<C>>& weight) override {
    const auto begin = reinterpret_cast<std::uintptr_t>(weight.data());
    const auto elements = static_cast<std::size_t>(weight.rows() * weight.cols());
    const std::uintptr_t end = begin + elements * perft::dtype_size(weight.dtype());
    bool inside = false;
    for (const Range& range : mapped) inside = inside || (begin >= range.begin && end <= range.end);
    ++matrices;
    outside += inside ? 0 : 1;
  }

  void parameter(perft::Parameter<perft::Param<C>>& vector) override {
    vector_bytes += perft::MemoryPool::size_class(vector.value().bytes());
  }
};

}  // namespace

TEMPLATE_TEST_CASE("loading maps every matrix and allocates the norm vectors alone", "", float, double, perft::bf16) {
  using C = TestType;
  auto& pool = perft::MemoryPool::global();
  for (const perft::DType stored : {perft::DType::f32, perft::DType::bf16, perft::DType::f16}) {
    for (const bool fused : {false, true}) {
      for (const bool olmoe : {false, true}) {
        CAPTURE(perft::dtype_name(stored), fused, olmoe);
        const io_test::TempFolder folder;
        const auto checkpoint = write_random_checkpoint(olmoe ? small_olmoe() : small_mixtral(),
                                                        {.dtype = stored, .shards = 2, .fused = fused}, folder.path());
        pool.reset_peak();
        const std::size_t before = pool.stats().live;
        Engine<C> engine(folder.path());
        const std::size_t live = pool.stats().live - before, peak = pool.stats().peak - before;

        Survey<C> survey;
        survey.mapped = mappings(folder.path());
        REQUIRE_FALSE(survey.mapped.empty());
        engine.model().visit(survey);
        const std::size_t vectors = 2 * (olmoe ? 4 : 2) + 1;
        CHECK(survey.matrices == checkpoint.weights.size() - vectors);
        CHECK(survey.outside == 0);
        CHECK(survey.vector_bytes > 0);
        CHECK(live == survey.vector_bytes);
        CHECK(peak == live);
      }
    }
  }
  // What would be seen if a matrix were copied.
  const io_test::TempFolder folder;
  (void)write_random_checkpoint(small_olmoe(), {}, folder.path());
  Engine<C> engine(folder.path());
  engine.train_everything();
  Survey<C> survey;
  survey.mapped = mappings(folder.path());
  engine.model().visit(survey);
  CHECK(survey.outside == survey.matrices);
}

// GEMM throughput: forward x·Wᵀ and input gradient dy·W on expert shapes, alone and as one job over 64 experts.
// "best" and "mean" are 2·M·N·K / time in GF/s of the fastest call and of all calls; on a shared machine only the first
// says something about the code. With one thread the time is that thread's CPU time, so that time others take does not
// count. bench/core/gemm_torch.py measures PyTorch on the same shapes.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <ctime>
#include <string>
#include <vector>

#include "perft/core/gemm.hpp"

namespace {

using namespace perft;

enum Direction { forward, dgrad };

/// Random values, repeated after a million: generating gigabytes would take longer than the measurement.
template <class T>
std::vector<T> random_values(std::int64_t n, std::uint64_t seed) {
  PhiloxStream random(seed);
  std::vector<T> values(static_cast<std::size_t>(n));
  constexpr std::size_t period = 1 << 20;
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = i < period ? T(static_cast<float>(random.uniform() * 2 - 1)) : values[i - period];
  }
  return values;
}

double now(bool this_thread_only) {
  timespec t = {};
  clock_gettime(this_thread_only ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/// x [experts·m, in] times weights [experts, n, k], result rounded to C.
template <class C>
void run_gemm(benchmark::State& state, Direction direction, int experts) {
  const std::int64_t m = state.range(0);
  const std::int64_t n = state.range(1);
  const std::int64_t k = state.range(2);
  ThreadPool::global().set_threads(static_cast<int>(state.range(3)));
  const std::int64_t width_in = direction == forward ? k : n;
  const std::int64_t width_out = direction == forward ? n : k;
  const std::vector<C> x = random_values<C>(experts * m * width_in, 1);
  const std::vector<C> w = random_values<C>(experts * n * k, 2);
  std::vector<C> y(static_cast<std::size_t>(experts * m * width_out));
  std::vector<gemm::Problem<C>> problems;
  for (int e = 0; e < experts; ++e) {
    gemm::Problem<C> p;
    p.m = m;
    p.n = width_out;
    p.k = width_in;
    p.a = {x.data() + e * m * width_in, dtype_of<C>, width_in, 1};
    const C* weights = w.data() + e * n * k;
    p.b = direction == forward ? gemm::Operand{weights, dtype_of<C>, 1, k} : gemm::Operand{weights, dtype_of<C>, k, 1};
    p.c = {y.data() + e * m * width_out, dtype_of<C>, width_out, 1};
    problems.push_back(p);
  }
  double best = 1e30;
  double total = 0;
  for (auto _ : state) {
    const double start = now(state.range(3) == 1);
    gemm::run<C>(std::span<const gemm::Problem<C>>(problems));
    benchmark::DoNotOptimize(y.data());
    benchmark::ClobberMemory();
    const double seconds = now(state.range(3) == 1) - start;
    best = std::min(best, seconds);
    total += seconds;
  }
  const double gflop = 2e-9 * static_cast<double>(experts * m * n * k);
  state.counters["best"] = gflop / best;
  state.counters["mean"] = gflop * static_cast<double>(state.iterations()) / total;
}

template <class C>
void add(const std::string& type) {
  for (const Direction direction : {forward, dgrad}) {
    const std::string way = direction == forward ? "/forward" : "/dgrad";
    for (const int threads : {1, 2}) {
      for (const std::int64_t m : {1, 8, 32, 64, 128, 512, 4096}) {
        for (const auto& [n, k] : {std::pair{1024, 2048}, std::pair{2048, 1024}}) {
          benchmark::RegisterBenchmark(("gemm/" + type + way).c_str(),
                                       [=](benchmark::State& state) { run_gemm<C>(state, direction, 1); })
              ->Args({m, n, k, threads})
              ->ArgNames({"M", "N", "K", "threads"})
              ->UseRealTime();
        }
      }
      for (const std::int64_t m : {8, 32, 128}) {
        benchmark::RegisterBenchmark(("grouped64/" + type + way).c_str(),
                                     [=](benchmark::State& state) { run_gemm<C>(state, direction, 64); })
            ->Args({m, 1024, 2048, threads})
            ->ArgNames({"M", "N", "K", "threads"})
            ->UseRealTime();
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::AddCustomContext("isa", std::string(isa_name(active_isa())));
  add<bf16>("bf16");
  add<float>("f32");
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}

// RMSNorm at the widths of OLMoE (2048) and Mixtral (4096): bytes moved per second, so that a number can be held
// against the machine's memory bandwidth. Forward reads x and writes y; backward by the input reads dy and x and writes
// dx.

#include "perft/ops/rms_norm.hpp"

#include <benchmark/benchmark.h>

#include <cstdint>

#include "perft/core/rng.hpp"

namespace {

using namespace perft;

template <class T>
Tensor<T> random_tensor(Shape shape, std::uint64_t seed) {
  PhiloxStream random(seed);
  Tensor<T> tensor = Tensor<T>::empty(shape);
  for (T& value : tensor.mutable_span()) {
    value = T(static_cast<float>(random.uniform() * 2 - 1));
  }
  return tensor;
}

template <class C>
void forward(benchmark::State& state) {
  const auto x = random_tensor<C>({state.range(0), state.range(1)}, 1);
  const auto w = random_tensor<Param<C>>({state.range(1)}, 2);
  for (auto _ : state) {
    benchmark::DoNotOptimize(rms_norm_forward(x, w, 1e-5).y.data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(2 * x.bytes()));
}

template <class C>
void backward_input(benchmark::State& state) {
  const auto x = random_tensor<C>({state.range(0), state.range(1)}, 1);
  const auto dy = random_tensor<C>({state.range(0), state.range(1)}, 3);
  const auto w = random_tensor<Param<C>>({state.range(1)}, 2);
  const auto inverse = rms_norm_forward(x, w, 1e-5).inverse;
  for (auto _ : state) {
    benchmark::DoNotOptimize(rms_norm_backward_input(dy, x, w, inverse).data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(3 * x.bytes()));
}

void sizes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"T", "D"})->Args({512, 2048})->Args({512, 4096})->UseRealTime();
}

BENCHMARK(forward<bf16>)->Apply(sizes);
BENCHMARK(forward<float>)->Apply(sizes);
BENCHMARK(backward_input<bf16>)->Apply(sizes);
BENCHMARK(backward_input<float>)->Apply(sizes);

}  // namespace

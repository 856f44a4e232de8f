// A user of the core alone.
#include <atomic>  // the sum of the tasks

#include "perft/core/parallel.hpp"

int main() {
  std::atomic<std::int64_t> sum{0};
  perft::parallel_for(100, 7, [&](std::int64_t begin, std::int64_t end) { sum += end - begin; });
  return sum == 100 ? 0 : 1;
}

#include "perft/core/pool.hpp"

#include <catch2/catch.hpp>  // test cases
#include <cstdint>           // addresses
#include <cstring>           // std::memset
#include <fstream>           // /proc/self/maps
#include <memory>            // blocks
#include <sstream>           // its lines
#include <string>            // its lines
#include <thread>            // concurrent use
#include <vector>            // blocks

using perft::MemoryPool;
using perft::MemoryStats;

TEST_CASE("pool: size classes leave at most an eighth as slack and are multiples of 64") {
  CHECK(MemoryPool::size_class(0) == 64);
  CHECK(MemoryPool::size_class(1) == 64);
  CHECK(MemoryPool::size_class(64) == 64);
  CHECK(MemoryPool::size_class(65) == 128);
  CHECK(MemoryPool::size_class(1024) == 1024);
  CHECK(MemoryPool::size_class(1025) == 1152);
  CHECK(MemoryPool::size_class(std::size_t{1} << 30) == std::size_t{1} << 30);
  bool right = true;
  for (std::size_t n = 1; n < 100000; n = n * 9 / 8 + 1) {
    const std::size_t size = MemoryPool::size_class(n);
    right = right && size >= n && size % 64 == 0 && (size - n <= 63 || (size - n) * 8 <= size) &&
            MemoryPool::size_class(size) == size;
  }
  CHECK(right);
}

TEST_CASE("pool: bytes in use are counted, and the peak is kept until reset") {
  MemoryPool pool;
  auto a = pool.allocate(1000);  // 1024
  CHECK(pool.stats().live == 1024);
  {
    const auto b = pool.allocate(64);
    CHECK(pool.stats().live == 1088);
  }
  CHECK(pool.stats().live == 1024);
  CHECK(pool.stats().peak == 1088);
  pool.reset_peak();
  CHECK(pool.stats().peak == 1024);
  a.reset();
  CHECK(pool.stats().live == 0);
  CHECK(pool.stats().peak == 1024);
}

TEST_CASE("pool: blocks are aligned and writable to their end") {
  MemoryPool pool;
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{63}, std::size_t{4097}, MemoryPool::kHugePage + 1}) {
    const auto block = pool.allocate(bytes);
    CHECK(reinterpret_cast<std::uintptr_t>(block.get()) % MemoryPool::kAlignment == 0);
    std::memset(block.get(), 0xab, bytes);
  }
}

#if !PERFT_POOL_BYPASS
TEST_CASE("pool: a block of the same class comes back, another class does not") {
  MemoryPool pool;
  auto a = pool.allocate(1000);
  void* const at = a.get();
  a.reset();
  CHECK(pool.stats().cached == 1024);
  const auto other = pool.allocate(5000);
  CHECK(other.get() != at);
  const auto again = pool.allocate(1010);
  CHECK(again.get() == at);
  CHECK(pool.stats().cached == 0);
}

TEST_CASE("pool: trim gives everything cached back to the system") {
  MemoryPool pool;
  const auto kept = pool.allocate(100);
  pool.allocate(1000).reset();
  pool.allocate(9000).reset();
  CHECK(pool.stats().cached == 1024 + 9216);
  pool.trim();
  CHECK(pool.stats().cached == 0);
  CHECK(pool.stats().live == 128);
}

TEST_CASE("pool: blocks in use and cached stay near the most that was in use, whatever sizes come") {
  constexpr std::size_t page = MemoryPool::kHugePage;
  MemoryPool pool;
  pool.allocate(8 * page).reset();
  CHECK(pool.stats().cached == 8 * page);
  {
    const auto small = pool.allocate(64);  // fits beside it
    CHECK(pool.stats().cached == 8 * page);
  }
  const auto other = pool.allocate(6 * page);  // does not
  CHECK(pool.stats().cached <= 64);
  CHECK(pool.stats().live == 6 * page);
  std::vector<std::shared_ptr<void>> blocks;
  for (std::size_t bytes = page; bytes < 3 * page; bytes += page / 4) {
    blocks.push_back(pool.allocate(bytes));
    blocks.resize(blocks.size() / 2);
    CHECK(pool.stats().live + pool.stats().cached <= 9 * page + page / 4 + page);
  }
}

#if defined(__linux__)
TEST_CASE("pool: a large block begins at a huge page, and its pages go back to the system") {
  const auto mapped = [](const void* at) {
    std::ifstream maps("/proc/self/maps");
    const auto address = reinterpret_cast<std::uintptr_t>(at);
    for (std::string line; std::getline(maps, line);) {
      std::uintptr_t begin = 0, end = 0;
      char dash = 0;
      std::istringstream(line) >> std::hex >> begin >> dash >> end;
      if (begin <= address && address < end) {
        return true;
      }
    }
    return false;
  };
  MemoryPool pool;
  auto block = pool.allocate(3 * MemoryPool::kHugePage + 70000);
  void* const at = block.get();
  CHECK(reinterpret_cast<std::uintptr_t>(at) % MemoryPool::kHugePage == 0);
  std::memset(at, 1, 3 * MemoryPool::kHugePage + 70000);
  CHECK(mapped(at));
  block.reset();
  CHECK(mapped(at));
  pool.trim();
  CHECK_FALSE(mapped(at));
}
#endif
#endif

TEST_CASE("pool: several threads may allocate and free at once") {
  MemoryPool pool;
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 3; ++t) {
    threads.emplace_back([&pool, t] {
      for (std::size_t i = 0; i < 500; ++i) {
        const auto a = pool.allocate(64 * (1 + (i + t) % 7));
        const auto b = pool.allocate(64 * (1 + i % 5));
        std::memset(a.get(), static_cast<int>(t), 64);
        std::memset(b.get(), static_cast<int>(t), 64);
      }
    });
  }
  for (auto& thread : threads) {
    thread.join();
  }
  CHECK(pool.stats().live == 0);
  CHECK(pool.stats().peak <= 3 * (448 + 320));
}

#include "perft/core/parallel.hpp"

#include <atomic>            // what tasks report
#include <catch2/catch.hpp>  // test cases
#include <chrono>            // tasks long enough to overlap
#include <cstdint>           // indices
#include <mutex>             // lists filled by tasks
#include <set>               // which threads worked
#include <stdexcept>         // a thrown error
#include <string>            // its text
#include <thread>            // thread identities
#include <utility>           // chunk borders
#include <vector>            // counts per index

using perft::parallel_for;
using perft::ThreadPool;

namespace {

/// Gives the global pool a size for one scope.
class PoolSize {
 public:
  explicit PoolSize(int threads) : before_(ThreadPool::global().threads()) {
    ThreadPool::global().set_threads(threads);
  }

  ~PoolSize() { ThreadPool::global().set_threads(before_); }

  PoolSize(const PoolSize&) = delete;
  PoolSize& operator=(const PoolSize&) = delete;

 private:
  int before_;
};

/// How often each index in [0, tasks) was run.
std::vector<int> counts(ThreadPool& pool, std::int64_t tasks) {
  std::vector<std::atomic<int>> seen(static_cast<std::size_t>(tasks));
  pool.run(tasks, [&](std::int64_t i) { ++seen.at(static_cast<std::size_t>(i)); });
  return {seen.begin(), seen.end()};
}

std::vector<std::pair<std::int64_t, std::int64_t>> chunks_of(std::int64_t n, std::int64_t grain) {
  std::mutex mutex;
  std::set<std::pair<std::int64_t, std::int64_t>> chunks;
  std::int64_t calls = 0;
  parallel_for(n, grain, [&](std::int64_t begin, std::int64_t end) {
    const std::lock_guard lock(mutex);
    ++calls;
    chunks.emplace(begin, end);
  });
  CHECK(static_cast<std::int64_t>(chunks.size()) == calls);
  return {chunks.begin(), chunks.end()};
}

}  // namespace

TEST_CASE("every index is run exactly once") {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    CHECK(pool.threads() == threads);
    for (const std::int64_t tasks : {0, 1, 2, 3, 7, 64, 1009}) {
      CAPTURE(threads, tasks);
      CHECK(counts(pool, tasks) == std::vector<int>(static_cast<std::size_t>(tasks), 1));
    }
  }
}

TEST_CASE("a negative number of tasks runs nothing") {
  ThreadPool pool(2);
  bool ran = false;
  pool.run(-1, [&](std::int64_t) { ran = true; });
  CHECK_FALSE(ran);
}

TEST_CASE("many short jobs in a row lose no task") {
  ThreadPool pool(4);
  std::atomic<std::int64_t> sum{0};
  for (int job = 0; job < 2000; ++job) {
    pool.run(5, [&](std::int64_t i) { sum += i; });
  }
  CHECK(sum == 2000 * 10);
}

TEST_CASE("a job with fewer tasks than threads does not wait for the threads it has no use for") {
  ThreadPool pool(16);
  std::atomic<std::int64_t> sum{0};
  for (int job = 0; job < 3000; ++job) {
    pool.run(2, [&](std::int64_t i) { sum += i + 1; });
  }
  CHECK(sum == 3 * 3000);
}

TEST_CASE("what tasks wrote is visible when run returns") {
  ThreadPool pool(4);
  for (std::int64_t round = 1; round <= 200; ++round) {
    std::vector<std::int64_t> out(33, 0);  // plain memory: ThreadSanitizer sees a missing join
    pool.run(33, [&](std::int64_t i) { out[static_cast<std::size_t>(i)] = i * round; });
    for (std::int64_t i = 0; i < 33; ++i) {
      REQUIRE(out[static_cast<std::size_t>(i)] == i * round);
    }
  }
}

TEST_CASE("more than one thread works") {
  ThreadPool pool(2);
  std::mutex mutex;
  std::set<std::thread::id> workers;
  // A task that outlasts the wake-up of the other thread, so that one thread cannot take them all.
  pool.run(8, [&](std::int64_t) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const std::lock_guard lock(mutex);
    workers.insert(std::this_thread::get_id());
  });
  CHECK(workers.size() == 2);
  CHECK(workers.count(std::this_thread::get_id()) == 1);
}

TEST_CASE("an exception crosses the join and the pool stays usable") {
  for (const int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    CAPTURE(threads);
    std::atomic<int> started{0};
    std::string text;
    try {
      pool.run(1000, [&](std::int64_t i) {
        ++started;
        if (i == 3) {
          throw std::out_of_range("task 3");
        }
      });
    } catch (const std::out_of_range& error) {
      text = error.what();
    }
    CHECK(text == "task 3");
    CHECK(started >= 4);
    CHECK(counts(pool, 100) == std::vector<int>(100, 1));
  }
}

TEST_CASE("only one exception arrives when every task throws") {
  ThreadPool pool(4);
  CHECK_THROWS_AS(pool.run(64, [](std::int64_t) { throw std::runtime_error("each"); }), std::runtime_error);
  CHECK(counts(pool, 9) == std::vector<int>(9, 1));
}

TEST_CASE("a nested run does its tasks on the calling thread") {
  ThreadPool pool(2);
  std::atomic<int> inner{0};
  std::atomic<int> elsewhere{0};
  pool.run(6, [&](std::int64_t) {
    const auto here = std::this_thread::get_id();
    pool.run(5, [&](std::int64_t) {
      ++inner;
      elsewhere += std::this_thread::get_id() == here ? 0 : 1;
    });
  });
  CHECK(inner == 30);
  CHECK(elsewhere == 0);
}

TEST_CASE("an exception of a nested run reaches the outer caller") {
  ThreadPool pool(2);
  const auto nested = [&](std::int64_t) {
    pool.run(3, [](std::int64_t j) {
      if (j == 2) {
        throw std::runtime_error("inner");
      }
    });
  };
  CHECK_THROWS_WITH(pool.run(4, nested), "inner");
  CHECK(counts(pool, 20) == std::vector<int>(20, 1));
}

TEST_CASE("set_threads changes the size between jobs") {
  ThreadPool pool(1);
  for (const int threads : {3, 1, 2, 2, 5, 1}) {
    pool.set_threads(threads);
    CHECK(pool.threads() == threads);
    CHECK(counts(pool, 50) == std::vector<int>(50, 1));
  }
}

TEST_CASE("the default pool has at least one thread") {
  CHECK(ThreadPool::default_threads() >= 1);
}

TEST_CASE("chunks cover the range and do not depend on the number of threads") {
  for (const std::int64_t n : {1, 2, 6, 7, 8, 100, 1009}) {
    for (const std::int64_t grain : {1, 3, 7, 64, 2000}) {
      CAPTURE(n, grain);
      std::vector<std::pair<std::int64_t, std::int64_t>> expected;
      for (std::int64_t begin = 0; begin < n; begin += grain) {
        expected.emplace_back(begin, begin + grain < n ? begin + grain : n);
      }
      for (const int threads : {1, 2, 5}) {
        const PoolSize size(threads);
        CHECK(chunks_of(n, grain) == expected);
      }
    }
  }
}

TEST_CASE("an empty range calls nothing") {
  CHECK(chunks_of(0, 4).empty());
}

TEST_CASE("a sum per chunk has the same bits for any number of threads") {
  const auto sum = [](int threads) {
    const PoolSize size(threads);
    std::vector<float> partial(101, 0.0F);
    parallel_for(1009, 10, [&](std::int64_t begin, std::int64_t end) {
      float s = 0.0F;
      for (std::int64_t i = begin; i < end; ++i) {
        s += 1.0F / static_cast<float>(i + 1);
      }
      partial[static_cast<std::size_t>(begin / 10)] = s;
    });
    float total = 0.0F;
    for (const float p : partial) {
      total += p;
    }
    return total;
  };
  CHECK(sum(2) == sum(1));
  CHECK(sum(7) == sum(1));
}

// How many threads there are without being asked for, and what happens when one cannot be made.

#include <sys/resource.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <string>

#include "io/temp_folder.hpp"
#include "perft/core/parallel.hpp"

using perft::ThreadPool;

namespace {

/// A control group's folder that holds the one file.
double quota(const std::string& file, const std::string& text) {
  const io_test::TempFolder folder;
  std::filesystem::create_directories(std::filesystem::path(folder.path(file)).parent_path());
  std::ofstream(folder.path(file)) << text;
  return ThreadPool::cpu_quota(folder.path());
}

}  // namespace

TEST_CASE("a control group's quota in processors: both versions, none, and nonsense") {
  CHECK(quota("cpu.max", "200000 100000\n") == 2.0);
  CHECK(quota("cpu.max", "150000 100000\n") == 1.5);
  CHECK(quota("cpu.max", "max 100000\n") == 0);
  CHECK(quota("cpu.max", "") == 0);
  CHECK(quota("cpu.max", "100000 0\n") == 0);
  CHECK(quota("cpu/cpu.cfs_quota_us", "400000\n") == 0);  // without its period
  const io_test::TempFolder folder;
  std::filesystem::create_directory(folder.path("cpu"));
  std::ofstream(folder.path("cpu/cpu.cfs_period_us")) << "100000\n";
  std::ofstream(folder.path("cpu/cpu.cfs_quota_us")) << "400000\n";
  CHECK(ThreadPool::cpu_quota(folder.path()) == 4.0);
  std::ofstream(folder.path("cpu/cpu.cfs_quota_us")) << "-1\n";
  CHECK(ThreadPool::cpu_quota(folder.path()) == 0);
  CHECK(ThreadPool::cpu_quota("/nonexistent") == 0);
}

// Sanitizers reserve more address space than any limit leaves.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_CASE("a thread that cannot be made is one error, and the pool goes on with one") {
  std::ifstream statm("/proc/self/statm");
  std::uint64_t pages = 0;
  statm >> pages;
  REQUIRE(pages > 0);
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_AS, &before) == 0);
  rlimit tight = before;
  tight.rlim_cur = pages * 4096 + (std::uint64_t{300} << 20);  // some dozen stacks
  ThreadPool pool(2);
  REQUIRE(setrlimit(RLIMIT_AS, &tight) == 0);
  std::string built, resized;
  try {
    const ThreadPool big(2000);
  } catch (const perft::UnsupportedError& error) {
    built = error.what();
  }
  try {
    pool.set_threads(2000);
  } catch (const perft::UnsupportedError& error) {
    resized = error.what();
  }
  setrlimit(RLIMIT_AS, &before);
  for (const std::string& text : {built, resized}) {
    INFO(text);
    CHECK(text.starts_with("threads: cannot start thread "));
    CHECK(text.ends_with(" of 2000: Resource temporarily unavailable; use fewer threads"));
  }
  CHECK(pool.threads() == 1);
  pool.set_threads(3);
  CHECK(pool.threads() == 3);
}
#endif

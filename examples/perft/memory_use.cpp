// The memory of this process and of the machine.

#include "memory_use.hpp"

#include <fcntl.h>   // open
#include <unistd.h>  // pread, sysconf

#include <algorithm>  // std::min
#include <chrono>     // between two looks
#include <csignal>    // signals are the main thread's
#include <cstdio>     // std::sscanf
#include <fstream>    // /proc
#include <sstream>    // lines
#include <string>     // lines
#include <vector>     // files

#include "perft/io/mapped_file.hpp"  // Descriptor

namespace perft::cli {

namespace {

std::int64_t proc_value(const char* file, const std::string& key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (line.rfind(key, 0) == 0) {
      std::istringstream rest(line.substr(key.size()));
      std::int64_t kib = 0;
      rest >> kib;
      return kib * 1024;
    }
  }
  return 0;
}

/// Resident less file-backed pages, from /proc/self/statm; 0 where it is not there.
std::int64_t anonymous_memory() {
  static const perft::detail::Descriptor statm(::open("/proc/self/statm", O_RDONLY | O_CLOEXEC));
  static const std::int64_t page = ::sysconf(_SC_PAGESIZE);
  char text[128] = {};
  long long all = 0;
  long long resident = 0;
  long long shared = 0;
  if (::pread(statm.get(), text, sizeof(text) - 1, 0) <= 0 ||
      std::sscanf(text, "%lld %lld %lld", &all, &resident, &shared) != 3) {
    return 0;
  }
  return (resident - shared) * page;
}

}  // namespace

std::int64_t machine_memory() {
  std::int64_t memory = proc_value("/proc/meminfo", "MemTotal:");
  // This process's control group, in both versions of the interface; inside a container its path is the root's.
  std::ifstream groups("/proc/self/cgroup");
  std::vector<std::string> limits = {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"};
  for (std::string line; std::getline(groups, line);) {
    const std::string path = line.substr(line.rfind(':') + 1);
    if (line.rfind("0::", 0) == 0) {
      limits.push_back("/sys/fs/cgroup" + path + "/memory.max");
    } else if (line.find(":memory:") != std::string::npos) {
      limits.push_back("/sys/fs/cgroup/memory" + path + "/memory.limit_in_bytes");
    }
  }
  for (const std::string& file : limits) {
    std::int64_t limit = 0;
    if (std::ifstream in(file); in >> limit && limit > 0) {  // "max" is not a number
      memory = std::min(memory, limit);
    }
  }
  return memory;
}

std::int64_t free_memory() {
  return std::min(proc_value("/proc/meminfo", "MemAvailable:"), machine_memory());
}

std::int64_t peak_resident_memory() {
  return proc_value("/proc/self/status", "VmHWM:");
}

AnonymousMemory::AnonymousMemory() {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  sampler_ = std::thread([this] {
    while (!stop_.load(std::memory_order_relaxed)) {
      (void)now();
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

AnonymousMemory::~AnonymousMemory() {
  stop_.store(true, std::memory_order_relaxed);
  sampler_.join();
}

std::int64_t AnonymousMemory::now() const {
  const std::int64_t bytes = anonymous_memory();
  std::int64_t peak = peak_.load(std::memory_order_relaxed);
  while (bytes > peak && !peak_.compare_exchange_weak(peak, bytes, std::memory_order_relaxed)) {
  }
  return bytes;
}

std::int64_t AnonymousMemory::peak() const {
  (void)now();
  return peak_.load(std::memory_order_relaxed);
}

}  // namespace perft::cli

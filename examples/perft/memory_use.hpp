#pragma once
// The memory of this process and of the machine, as the kernel counts it.

#include <atomic>   // the peak
#include <cstdint>  // bytes
#include <thread>   // the sampler

namespace perft::cli {

/// Bytes of memory this process may come to use: the machine's, or its control group's limit. Not what is free: that
/// changes from run to run.
std::int64_t machine_memory();

/// Bytes of memory that could be had now without swapping, cached files included (MemAvailable), less what a control
/// group's limit leaves out.
std::int64_t free_memory();

/// Largest resident memory of this process so far (VmHWM), mapped weights included; 0 where the kernel does not say.
std::int64_t peak_resident_memory();

/// The largest anonymous memory of this process while it lives: what is not backed by a file, so cannot be dropped. The
/// kernel keeps no such peak, so a thread looks every few milliseconds.
class AnonymousMemory {
 public:
  AnonymousMemory();
  ~AnonymousMemory();
  AnonymousMemory(const AnonymousMemory&) = delete;
  AnonymousMemory& operator=(const AnonymousMemory&) = delete;

  std::int64_t now() const;

  std::int64_t peak() const;

 private:
  mutable std::atomic<std::int64_t> peak_{0};
  std::atomic<bool> stop_{false};
  std::thread sampler_;
};

}  // namespace perft::cli

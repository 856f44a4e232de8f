#pragma once
// The caching pool behind every owned CPU tensor: blocks come back warm (already faulted in), and bytes are counted.

#include <algorithm>  // std::max
#include <bit>        // std::bit_width
#include <cstddef>    // std::size_t
#include <cstdlib>    // std::aligned_alloc, std::free
#include <map>        // free lists by size class
#include <memory>     // std::shared_ptr
#include <mutex>      // shared by threads
#include <new>        // std::bad_alloc
#include <vector>     // free lists

#if defined(__linux__)
#include <sys/mman.h>  // madvise
#endif

#include "perft/core/config.hpp"
#include "perft/core/device.hpp"

#if defined(__SANITIZE_ADDRESS__)
#define PERFT_POOL_BYPASS 1  // a cached block would hide a use after free and an overflow into the slack
#else
#define PERFT_POOL_BYPASS 0
#endif

namespace perft::inline PERFT_ABI {

/// Bytes are those handed out (rounded to their size class).
struct MemoryStats {
  std::size_t live = 0;    // in use now
  std::size_t peak = 0;    // largest `live` since the last reset
  std::size_t cached = 0;  // kept for reuse
};

/// Thread-safe cache of 64-byte-aligned blocks in 8 size classes per power of two (at most 1/8 of a block is slack).
class MemoryPool {
 public:
  static constexpr std::size_t kAlignment = 64;
  static constexpr std::size_t kHugePage = std::size_t{1} << 21;

  /// Never destroyed: static tensors may outlive any other static.
  static MemoryPool& global() {
    static MemoryPool* pool = new MemoryPool;
    return *pool;
  }

  std::shared_ptr<void> allocate(std::size_t bytes) {
    const std::size_t size = size_class(bytes);
    void* block = take(size);
    return {block, [this, size](void* p) { give_back(p, size); }};
  }

  MemoryStats stats() const {
    std::lock_guard lock(mutex_);
    return stats_;
  }

  void reset_peak() {
    std::lock_guard lock(mutex_);
    stats_.peak = stats_.live;
  }

  /// Returns all cached blocks to the system.
  void trim() {
    std::lock_guard lock(mutex_);
    trim_locked(0);
  }

  static std::size_t size_class(std::size_t bytes) {
    const std::size_t n = std::max(bytes, kAlignment);
    const std::size_t step =
        std::max(kAlignment, std::size_t{1} << (std::bit_width(n - 1) > 3 ? std::bit_width(n - 1) - 4 : 0));
    return (n + step - 1) / step * step;
  }

 private:
  void* take(std::size_t size) {
    {
      std::lock_guard lock(mutex_);
      stats_.live += size;
      stats_.peak = std::max(stats_.peak, stats_.live);
      if (const auto found = free_.find(size); found != free_.end() && !found->second.empty()) {
        void* block = found->second.back();
        found->second.pop_back();
        stats_.cached -= size;
        return block;
      }
      // A miss means the cached blocks have the wrong sizes: keep at most a quarter of what is in use.
      if (stats_.cached > stats_.live / 4 + kHugePage) {
        trim_locked(stats_.live / 4);
      }
    }
    const bool large = size >= kHugePage;
    const std::size_t alignment = large ? kHugePage : kAlignment;
    const std::size_t rounded = (size + alignment - 1) / alignment * alignment;
    void* block = std::aligned_alloc(alignment, rounded);
    if (block == nullptr) {
      std::lock_guard lock(mutex_);
      stats_.live -= size;
      throw std::bad_alloc();
    }
#if defined(__linux__)
    if (large) {
      // Best effort: fewer page faults and TLB misses. The last, partial huge page would hold more than `size` counts.
      (void)madvise(block, size / kHugePage * kHugePage, MADV_HUGEPAGE);
    }
#endif
    return block;
  }

  void give_back(void* block, std::size_t size) {
    std::lock_guard lock(mutex_);
    stats_.live -= size;
    if constexpr (PERFT_POOL_BYPASS != 0) {
      std::free(block);
    } else {
      free_[size].push_back(block);
      stats_.cached += size;
    }
  }

  void trim_locked(std::size_t keep) {
    for (auto it = free_.rbegin(); it != free_.rend() && stats_.cached > keep; ++it) {
      for (; !it->second.empty() && stats_.cached > keep; it->second.pop_back()) {
        std::free(it->second.back());
        stats_.cached -= it->first;
      }
    }
  }

  mutable std::mutex mutex_;
  std::map<std::size_t, std::vector<void*>> free_;
  MemoryStats stats_;
};

template <>
struct DeviceMemory<Cpu> {
  static std::shared_ptr<void> allocate(std::size_t bytes) { return MemoryPool::global().allocate(bytes); }
};

}  // namespace perft::inline PERFT_ABI

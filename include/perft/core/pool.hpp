#pragma once
// The caching pool behind every owned CPU tensor: blocks come back warm (already faulted in), and bytes are counted.

#include <algorithm>  // std::max
#include <bit>        // std::bit_width
#include <cstddef>    // std::size_t
#include <cstdint>    // addresses
#include <cstdlib>    // std::aligned_alloc, std::free
#include <map>        // free lists by size class
#include <memory>     // std::shared_ptr
#include <mutex>      // shared by threads
#include <new>        // std::bad_alloc
#include <vector>     // free lists

#if defined(__linux__)
#include <sys/mman.h>  // mmap, madvise
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
/// What is in use and what is cached together stay within 1/32 (and a huge page) of the most that ever was in use:
/// batches of other sizes do not pile up blocks that fit nothing.
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
      most_live_ = std::max(most_live_, stats_.live);
      if (const auto found = free_.find(size); found != free_.end() && !found->second.empty()) {
        void* block = found->second.back();
        found->second.pop_back();
        stats_.cached -= size;
        return block;
      }
      // A miss: some cached blocks have the wrong sizes and make room.
      trim_locked(most_live_ + most_live_ / 32 + kHugePage - stats_.live);
    }
    void* block = from_system(size);
    if (block == nullptr) {
      std::lock_guard lock(mutex_);
      stats_.live -= size;
      throw std::bad_alloc();
    }
    return block;
  }

  void give_back(void* block, std::size_t size) {
    std::lock_guard lock(mutex_);
    stats_.live -= size;
    if constexpr (PERFT_POOL_BYPASS != 0) {
      to_system(block, size);
    } else {
      free_[size].push_back(block);
      stats_.cached += size;
    }
  }

  void trim_locked(std::size_t keep) {
    for (auto it = free_.rbegin(); it != free_.rend() && stats_.cached > keep; ++it) {
      for (; !it->second.empty() && stats_.cached > keep; it->second.pop_back()) {
        to_system(it->second.back(), it->first);
        stats_.cached -= it->first;
      }
    }
  }

  /// Large blocks are mappings of their own: malloc, which keeps freed ones inside its heap, would not give their pages
  /// back. They begin at a huge page, which means fewer page faults and address cache misses where the kernel has some.
  static bool is_mapping(std::size_t size) {
#if defined(__linux__)
    return PERFT_POOL_BYPASS == 0 && size >= kHugePage;
#else
    return false;
#endif
  }

  static void* from_system(std::size_t size) {
    if (!is_mapping(size)) {
      return std::aligned_alloc(kAlignment, size);  // size classes are multiples of the alignment
    }
#if defined(__linux__)
    const std::size_t reserved = size + kHugePage;
    void* const mapped = mmap(nullptr, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) {
      return nullptr;
    }
    auto* const begin = static_cast<char*>(mapped);
    const std::size_t before = (kHugePage - reinterpret_cast<std::uintptr_t>(begin) % kHugePage) % kHugePage;
    if (before > 0) {
      munmap(begin, before);
    }
    const std::size_t used = pages(size);
    if (before + used < reserved) {
      munmap(begin + before + used, reserved - before - used);
    }
    // Advice only. The last, partial huge page would hold more than `size` counts.
    (void)madvise(begin + before, size / kHugePage * kHugePage, MADV_HUGEPAGE);
    return begin + before;
#else
    return nullptr;
#endif
  }

  static void to_system(void* block, std::size_t size) {
#if defined(__linux__)
    if (is_mapping(size)) {
      munmap(block, pages(size));
      return;
    }
#endif
    std::free(block);
  }

  /// `size` in whole pages of any size in use (64 KiB at most).
  static std::size_t pages(std::size_t size) {
    constexpr std::size_t page = std::size_t{1} << 16;
    return (size + page - 1) / page * page;
  }

  mutable std::mutex mutex_;
  std::map<std::size_t, std::vector<void*>> free_;
  MemoryStats stats_;
  std::size_t most_live_ = 0;
};

template <>
struct DeviceMemory<Cpu> {
  static std::shared_ptr<void> allocate(std::size_t bytes) { return MemoryPool::global().allocate(bytes); }
};

}  // namespace perft::inline PERFT_ABI

#pragma once
// Grow-only scratch memory: GEMM calls in a loop must not fault fresh pages in every time.

#include <cstddef>  // std::size_t
#include <new>      // aligned operator new

#if defined(__linux__)
#include <sys/mman.h>  // madvise
#endif

#include "perft/core/config.hpp"

namespace perft::inline PERFT_ABI {

namespace gemm::detail {

/// 64-byte aligned memory that only grows; contents are lost when it does.
class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  ~Scratch() { release(); }

  template <class T>
  T* get(std::size_t count) {
    const std::size_t bytes = count * sizeof(T);
    if (bytes > capacity_) {
      release();
      grow(bytes);
    }
    return static_cast<T*>(data_);
  }

 private:
  static constexpr std::size_t huge_page = std::size_t{1} << 21;

  /// Large buffers take whole huge pages: packed panels walk more small pages at once than address caches hold.
  void grow(std::size_t bytes) {
    alignment_ = bytes < huge_page / 2 ? 64 : huge_page;
    const std::size_t rounded = (bytes + alignment_ - 1) / alignment_ * alignment_;
    data_ = ::operator new (rounded, std::align_val_t{alignment_});
    capacity_ = rounded;
#if defined(__linux__)
    if (alignment_ == huge_page) {
      madvise(data_, rounded, MADV_HUGEPAGE);  // only advice: refused, everything works as before
    }
#endif
  }

  void release() {
    ::operator delete (data_, std::align_val_t{alignment_});
    data_ = nullptr;
    capacity_ = 0;
  }

  void* data_ = nullptr;
  std::size_t capacity_ = 0;
  std::size_t alignment_ = 64;
};

/// The buffers one thread uses: `shared` holds what it packed for a whole job as the caller, the others what it needs
/// inside one task.
struct ThreadScratch {
  Scratch shared, streamed, acc, turned;
};

inline ThreadScratch& thread_scratch() {
  thread_local ThreadScratch scratch;
  return scratch;
}

}  // namespace gemm::detail

}  // namespace perft::inline PERFT_ABI

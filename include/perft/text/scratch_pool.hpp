#pragma once
// Scratch memory for threads that encode at the same time.

#include <memory>   // scratch
#include <mutex>    // the list of idle ones
#include <utility>  // std::move
#include <vector>   // the list

#include "perft/text/bpe.hpp"

namespace perft::inline PERFT_ABI {

/// The scratch memory that no thread is using. A thread that encodes borrows one, so that words are looked up and kept
/// without a lock per word; there are never more than threads that encoded at once. Thread-safe.
class ScratchPool {
 public:
  /// Borrowed scratch memory; returned when it goes out of scope.
  class Lease {
   public:
    explicit Lease(ScratchPool& pool) : pool_(pool), scratch_(pool.take()) {}

    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;

    ~Lease() { pool_.give_back(std::move(scratch_)); }

    BpeScratch& operator*() const { return *scratch_; }

   private:
    ScratchPool& pool_;
    std::unique_ptr<BpeScratch> scratch_;
  };

 private:
  std::unique_ptr<BpeScratch> take() {
    {
      const std::lock_guard lock(mutex_);
      if (!idle_.empty()) {
        std::unique_ptr<BpeScratch> scratch = std::move(idle_.back());
        idle_.pop_back();
        return scratch;
      }
    }
    return std::make_unique<BpeScratch>();
  }

  void give_back(std::unique_ptr<BpeScratch> scratch) {
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(scratch));
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<BpeScratch>> idle_;
};

}  // namespace perft::inline PERFT_ABI

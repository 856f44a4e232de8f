#pragma once
// The temporary files that this process is writing, in a form that a signal handler can read and remove.

#include <linux/limits.h>  // PATH_MAX
#include <unistd.h>        // unlink

#include <array>    // slots
#include <atomic>   // states a handler may read
#include <cstddef>  // std::size_t
#include <cstring>  // std::memcpy
#include <string>   // paths

#include "perft/core/config.hpp"

namespace perft::inline PERFT_ABI {

namespace detail {

/// A few paths in static storage: no allocation, no lock, so that remove_temporaries may run in a signal handler.
struct Temporaries {
  enum State { kFree, kFilling, kListed };

  struct Slot {
    std::atomic<int> state{kFree};
    char path[PATH_MAX];
  };

  std::array<Slot, 16> slots;  // the program has one or two open; more are written but not listed
};

static_assert(std::atomic<int>::is_always_lock_free, "a signal handler may only read lock-free atomics");

inline Temporaries temporaries;

}  // namespace detail

/// Keeps `path` on the list while it lives. A path that does not fit (too long, no slot left) is not listed: the file
/// is written all the same, and only a signal in that moment would leave it behind.
class ListedTemporary {
 public:
  ListedTemporary() = default;

  ~ListedTemporary() { reset(); }

  ListedTemporary(const ListedTemporary&) = delete;
  ListedTemporary& operator=(const ListedTemporary&) = delete;

  /// Lists `path` in place of what was listed. Call it before the file is made: a name that does not exist does no
  /// harm.
  void list(const std::string& path) noexcept {
    reset();
    if (path.size() >= PATH_MAX) {
      return;
    }
    for (auto& slot : detail::temporaries.slots) {
      int expected = detail::Temporaries::kFree;
      if (slot.state.compare_exchange_strong(expected, detail::Temporaries::kFilling)) {
        std::memcpy(slot.path, path.c_str(), path.size() + 1);
        slot.state.store(detail::Temporaries::kListed);
        slot_ = &slot;
        return;
      }
    }
  }

  /// Takes the path off the list. Call it after the file is renamed or removed.
  void reset() noexcept {
    if (slot_ != nullptr) {
      slot_->state.store(detail::Temporaries::kFree);
      slot_ = nullptr;
    }
  }

 private:
  detail::Temporaries::Slot* slot_ = nullptr;
};

/// Removes every listed file. Async-signal-safe (atomics and unlink(2) alone); for a handler that ends the process, and
/// to be run by the thread that writes the files: one that goes on writing could make its next file after the removal.
inline void remove_temporaries() noexcept {
  for (auto& slot : detail::temporaries.slots) {
    if (slot.state.load() == detail::Temporaries::kListed) {
      ::unlink(slot.path);
    }
  }
}

}  // namespace perft::inline PERFT_ABI

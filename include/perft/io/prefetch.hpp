#pragma once
// Reading mapped files ahead of their first use, beside whatever the program does meanwhile.

#include <sys/mman.h>  // madvise

#include <algorithm>  // std::min
#include <atomic>     // stop
#include <cstddef>    // sizes
#include <memory>     // files
#include <thread>     // the reader
#include <utility>    // std::move
#include <vector>     // files

#include "perft/io/mapped_file.hpp"

namespace perft::inline PERFT_ABI {

/// Asks the system to read whole files into memory, in their order, from a thread of its own: a first pass over weights
/// then finds them there instead of waiting for a small piece at a time. Only advice: a file that is there already
/// costs nothing, a failure changes nothing. Whoever starts one must know that memory has room for all of it, or later
/// files push out earlier ones. The destructor stops after the piece being read.
class Prefetch {
 public:
  explicit Prefetch(std::vector<std::shared_ptr<const MappedFile>> files)
      : files_(std::move(files)), reader_([this] { read(); }) {}

  ~Prefetch() {
    stop_.store(true, std::memory_order_relaxed);
    reader_.join();
  }

  Prefetch(const Prefetch&) = delete;
  Prefetch& operator=(const Prefetch&) = delete;

 private:
  void read() {
    constexpr std::size_t piece = std::size_t{16} << 20;
    for (const auto& file : files_) {
      for (std::size_t at = 0; at < file->size() && !stop_.load(std::memory_order_relaxed); at += piece) {
        // MADV_WILLNEED takes any mapping, and a mapping begins at a page as every piece then does.
        auto* const begin = const_cast<std::byte*>(file->bytes().data()) + at;
        (void)::madvise(begin, std::min(piece, file->size() - at), MADV_WILLNEED);
      }
    }
  }

  std::vector<std::shared_ptr<const MappedFile>> files_;
  std::atomic<bool> stop_{false};
  std::thread reader_;  // last: it reads the others
};

}  // namespace perft::inline PERFT_ABI

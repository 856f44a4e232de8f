#pragma once
// Comparing a file on disk with what was written to it.

#include <fcntl.h>   // posix_fadvise
#include <unistd.h>  // read

#include <algorithm>    // std::min, std::mismatch
#include <cerrno>       // errno
#include <cstddef>      // std::byte
#include <string>       // paths
#include <string_view>  // text
#include <utility>      // std::move
#include <vector>       // a piece of the file

#include "perft/core/error.hpp"
#include "perft/io/mapped_file.hpp"  // open_for_reading, errno_text

namespace perft::inline PERFT_ABI {

/// Has the members of AtomicFile, and compares instead of writing: what wrote a file is run again with one of these.
/// The system is asked to drop its cached pages first, so that a disk is read and not the memory that was written from;
/// it may decline (a file system in memory, pages not yet synced), and a drive's own cache is out of reach.
class ReadBack {
 public:
  /// Throws IoError if the file cannot be opened.
  explicit ReadBack(std::string path) : path_(std::move(path)), file_(detail::open_for_reading(path_, 0)) {
    (void)::posix_fadvise(file_.get(), 0, 0, POSIX_FADV_DONTNEED);
  }

  const std::string& path() const { return path_; }

  /// Throws IoError unless the file goes on with these `bytes` bytes.
  void write(const void* data, std::size_t bytes) {
    const auto* expected = static_cast<const std::byte*>(data);
    while (bytes > 0) {
      const std::size_t got = read(std::min(bytes, kPiece));
      check<IoError>(got > 0, path_, ": reading it back ends after ", at_, " bytes, more were written", kAdvice);
      const auto differs = std::mismatch(expected, expected + got, piece_.begin()).first - expected;
      check<IoError>(differs == static_cast<std::ptrdiff_t>(got), path_, ": reading it back, byte ",
                     at_ + static_cast<std::size_t>(differs), " is not the one that was written", kAdvice);
      at_ += got;
      expected += got;
      bytes -= got;
    }
  }

  void write(std::string_view text) { write(text.data(), text.size()); }

  /// Throws IoError unless the file ends here.
  void commit() {
    check<IoError>(read(1) == 0, path_, ": reading it back, it is longer than the ", at_, " bytes written", kAdvice);
  }

 private:
  static constexpr std::size_t kPiece = std::size_t{1} << 20U;
  static constexpr const char* kAdvice = "; check disk and memory, or write to another disk";

  /// The next at most `bytes` bytes into piece_; 0 at the end.
  std::size_t read(std::size_t bytes) {
    piece_.resize(kPiece);
    ssize_t got = -1;
    do {
      got = ::read(file_.get(), piece_.data(), bytes);
    } while (got < 0 && errno == EINTR);
    check<IoError>(got >= 0, path_, ": cannot be read back: ", errno_text(errno), kAdvice);
    return static_cast<std::size_t>(got);
  }

  std::string path_;
  detail::Descriptor file_;
  std::vector<std::byte> piece_;
  std::size_t at_ = 0;
};

}  // namespace perft::inline PERFT_ABI

#pragma once
// Read-only files: mapped into memory without copying (weights), or read whole (small text).

#include <fcntl.h>     // open
#include <sys/mman.h>  // mmap
#include <sys/stat.h>  // fstat
#include <unistd.h>    // close, read

#include <cerrno>        // errno
#include <cstddef>       // std::byte
#include <memory>        // shared mappings
#include <span>          // the bytes
#include <string>        // paths
#include <system_error>  // thread-safe errno texts
#include <utility>       // std::move

#include "perft/core/error.hpp"

namespace perft::inline PERFT_ABI {

/// The text of an errno value, without strerror's shared buffer.
inline std::string errno_text(int code) {
  return std::generic_category().message(code);
}

namespace detail {

/// A file descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}

  ~Descriptor() {
    if (fd_ >= 0) {
      ::close(fd_);
    }
  }

  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int get() const { return fd_; }

 private:
  int fd_ = -1;
};

/// open(2) for reading; IoError with the path and the system's reason.
inline int open_for_reading(const std::string& path, int extra_flags) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | extra_flags);
  check<IoError>(fd >= 0, path, ": cannot open the file: ", errno_text(errno), "; check the path and its permissions");
  return fd;
}

}  // namespace detail

/// A whole file mapped read-only and private: pages are loaded on first touch and dropped under memory pressure, so
/// weights larger than the memory work. Writing through the mapping faults. If another process shortens the file while
/// it is mapped, touching the lost part raises SIGBUS: checkpoints must be replaced by rename (as AtomicFile does).
class MappedFile {
 public:
  /// Throws IoError (missing, unreadable, a directory, a pipe) with the path and the reason.
  explicit MappedFile(std::string path) : path_(std::move(path)) {
    // O_NONBLOCK: opening a FIFO would otherwise wait for a writer before it can be refused.
    const detail::Descriptor file(detail::open_for_reading(path_, O_NONBLOCK));

    struct stat info {};

    check<IoError>(::fstat(file.get(), &info) == 0, path_, ": cannot read the file's size: ", errno_text(errno));
    check<IoError>(!S_ISDIR(info.st_mode), path_, ": is a folder, expected a file; name a file in it");
    check<IoError>(S_ISREG(info.st_mode), path_,
                   ": is not a regular file and cannot be mapped; copy it to a file first");
    size_ = static_cast<std::size_t>(info.st_size);
    if (size_ == 0) {  // mmap refuses length 0
      return;
    }
    void* address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.get(), 0);
    check<IoError>(address != MAP_FAILED, path_, ": cannot map ", size_, " bytes: ", errno_text(errno),
                   "; raise the limit on virtual memory (ulimit -v) or free some");
    data_ = static_cast<const std::byte*>(address);
  }

  ~MappedFile() {
    if (data_ != nullptr) {
      ::munmap(const_cast<std::byte*>(data_), size_);  // takes void*, and does not write
    }
  }

  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }

  std::size_t size() const { return size_; }

  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Maps `path`; what is built on the mapping keeps it alive. Throws IoError as MappedFile does.
inline std::shared_ptr<const MappedFile> map_file(const std::string& path) {
  return std::make_shared<const MappedFile>(path);
}

/// The whole of a (small, possibly piped) file as text. Throws IoError with the path and the reason.
inline std::string read_text_file(const std::string& path) {
  const detail::Descriptor file(detail::open_for_reading(path, 0));
  std::string text;
  constexpr std::size_t chunk = std::size_t{1} << 16U;
  for (std::size_t used = 0;;) {
    text.resize(used + chunk);
    const ssize_t got = ::read(file.get(), text.data() + used, chunk);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    check<IoError>(got >= 0, path, ": cannot read the file: ", errno_text(errno));
    used += static_cast<std::size_t>(got);
    if (got == 0) {
      text.resize(used);
      return text;
    }
  }
}

}  // namespace perft::inline PERFT_ABI

#pragma once
// A file that grows while a run goes on: what append() was given is with the system when it returns, so that a killed
// run keeps what it had written, and on disk after sync().

#include <fcntl.h>     // open
#include <sys/stat.h>  // the size
#include <unistd.h>    // write, ftruncate

#include <cerrno>       // errno
#include <string>       // paths
#include <string_view>  // bytes
#include <utility>      // std::move

#include "perft/core/error.hpp"
#include "perft/io/mapped_file.hpp"  // Descriptor, errno_text
#include "perft/io/sync.hpp"

namespace perft::inline PERFT_ABI {

class AppendFile {
 public:
  /// Opens or creates. Throws IoError if that fails.
  explicit AppendFile(std::string path)
      : path_(std::move(path)), file_(::open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666)) {
    check<IoError>(file_.get() >= 0, path_, ": cannot open the file for writing: ", errno_text(errno),
                   "; check the folder and its permissions");
  }

  /// Cuts off all but the first `bytes`. Throws IoError.
  void truncate(std::size_t bytes) {
    const int code = ::ftruncate(file_.get(), static_cast<off_t>(bytes)) == 0 ? 0 : errno;
    check<IoError>(code == 0, path_, ": cannot cut the file: ", errno_text(code), "; check the disk");
  }

  /// One write(2), so that readers see all of `bytes` or nothing (but for the moment in which a disk is found full:
  /// what fitted is cut off again). Throws IoError.
  void append(std::string_view bytes) {
    struct stat before {};

    const bool known = ::fstat(file_.get(), &before) == 0;
    while (!bytes.empty()) {
      const ssize_t put = ::write(file_.get(), bytes.data(), bytes.size());
      if (put < 0 && errno == EINTR) {
        continue;
      }
      if (put <= 0) {
        const int code = put < 0 ? errno : ENOSPC;
        if (known) {
          (void)!::ftruncate(file_.get(), before.st_size);
        }
        fail<IoError>(
            path_, ": cannot write to the file: ", errno_text(code),
            code == ENOSPC || code == EDQUOT || code == EFBIG ? "; free space or raise the limit" : "; check the disk");
      }
      bytes.remove_prefix(static_cast<std::size_t>(put));
    }
  }

  /// Makes what was appended durable. Throws IoError.
  void sync() {
    const int code = detail::sync_descriptor(file_.get());
    check<IoError>(code == 0, path_, ": cannot sync the file: ", errno_text(code), "; check the disk");
  }

 private:
  std::string path_;
  detail::Descriptor file_;
};

}  // namespace perft::inline PERFT_ABI

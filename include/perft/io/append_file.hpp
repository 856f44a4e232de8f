#pragma once
// A file that grows while a run goes on: what append() was given is with the system when it returns, so that a killed
// run keeps what it had written.

#include <fcntl.h>   // open
#include <unistd.h>  // write, ftruncate

#include <cerrno>       // errno
#include <string>       // paths
#include <string_view>  // bytes
#include <utility>      // std::move

#include "perft/core/error.hpp"
#include "perft/io/mapped_file.hpp"  // Descriptor, errno_text

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
    check<IoError>(::ftruncate(file_.get(), static_cast<off_t>(bytes)) == 0, path_,
                   ": cannot cut the file: ", errno_text(errno));
  }

  /// One write(2), so that readers see all of `bytes` or nothing (but for a full disk). Throws IoError.
  void append(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t put = ::write(file_.get(), bytes.data(), bytes.size());
      if (put < 0 && errno == EINTR) {
        continue;
      }
      check<IoError>(put > 0, path_, ": cannot write to the file: ", errno_text(put < 0 ? errno : ENOSPC));
      bytes.remove_prefix(static_cast<std::size_t>(put));
    }
  }

 private:
  std::string path_;
  detail::Descriptor file_;
};

}  // namespace perft::inline PERFT_ABI

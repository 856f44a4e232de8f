#pragma once
// Files that appear whole or not at all: written under a temporary name beside the target, synced, renamed.

#include <fcntl.h>     // open
#include <sys/stat.h>  // stat
#include <unistd.h>    // write, unlink

#include <algorithm>     // std::min
#include <cerrno>        // errno
#include <cstddef>       // std::byte
#include <cstdio>        // std::rename
#include <filesystem>    // links
#include <string>        // paths
#include <string_view>   // text
#include <system_error>  // why a link cannot be followed

#include "perft/core/error.hpp"
#include "perft/io/mapped_file.hpp"  // errno_text
#include "perft/io/sync.hpp"
#include "perft/io/temporaries.hpp"

namespace perft::inline PERFT_ABI {

/// One output file. The constructor makes a temporary in the target's folder, `commit` syncs it, renames it over the
/// target and syncs the folder; without `commit` the destructor removes it. A symbolic link is followed, so the file it
/// points to is replaced (or made, if the link dangles), not the link. Every failure (no folder, no permission, disk
/// full) is one IoError that names the target, and leaves the target as it was and no temporary (but for a folder that
/// cannot be synced: then the new file is in place, and may be gone after a power failure); the temporary is listed for
/// remove_temporaries while it exists.
class AtomicFile {
 public:
  explicit AtomicFile(const std::string& path) : path_(path), target_(resolve(path)) {
    for (int attempt = 0; fd_ < 0; ++attempt) {
      temporary_ = target_ + ".tmp-" + std::to_string(::getpid()) + "-" + std::to_string(attempt);
      listed_.list(temporary_);
      fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);  // less the umask
      const int code = errno;
      if (fd_ < 0) {
        listed_.reset();
      }
      if (fd_ < 0 && code == EEXIST && attempt < 1000) {
        continue;  // left by a killed process, or another AtomicFile of this one
      }
      check<IoError>(fd_ >= 0, path_, ": cannot create the file: ", errno_text(code),
                     code == ENOENT ? "; create its folder first" : "; check the folder's permissions and free space");
    }
  }

  ~AtomicFile() { discard(); }

  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  const std::string& path() const { return path_; }

  /// Appends `bytes` bytes. Throws IoError if they cannot all be written; the file can then only be discarded.
  void write(const void* data, std::size_t bytes) {
    check<IoError>(fd_ >= 0, path_, ": written to after it was committed or failed; open it again");
    const auto* from = static_cast<const std::byte*>(data);
    while (bytes > 0) {
      const ssize_t put = ::write(fd_, from, std::min(bytes, std::size_t{1} << 30U));
      if (put < 0 && errno == EINTR) {
        continue;
      }
      if (put <= 0) {
        give_up("cannot write to the file", put < 0 ? errno : ENOSPC);
      }
      from += put;
      bytes -= static_cast<std::size_t>(put);
    }
  }

  void write(std::string_view text) { write(text.data(), text.size()); }

  /// Makes the file visible under its name, durably. Call once, last.
  void commit() {
    check<IoError>(fd_ >= 0, path_, ": committed twice or after a failed write; open it again");
    if (const int code = detail::sync_descriptor(fd_); code != 0) {
      give_up("cannot sync the file", code);
    }
    const int fd = fd_;
    fd_ = -1;
    if (::close(fd) != 0) {  // network file systems report a full disk here
      give_up("cannot close the file", errno);
    }
    if (std::rename(temporary_.c_str(), target_.c_str()) != 0) {
      give_up("cannot rename the finished file into place", errno);
    }
    temporary_.clear();
    listed_.reset();
    sync_folder(detail::folder_of(target_));
  }

 private:
  /// Where the bytes go: the end of a chain of links. Refuses what a rename would destroy (a device, a pipe) or cannot
  /// replace (a folder).
  static std::string resolve(const std::string& path) {
    check<IoError>(!path.empty(), "the name of the output file is empty; give one");

    struct stat info {};

    if (::stat(path.c_str(), &info) == 0) {
      check<IoError>(!S_ISDIR(info.st_mode), path, ": is a folder, expected the name of a file to write");
      check<IoError>(S_ISREG(info.st_mode), path,
                     ": is a device or a pipe, expected the name of a regular file to write");
    }
    namespace fs = std::filesystem;
    std::error_code error;
    fs::path target = path;
    for (int links = 0; fs::is_symlink(fs::symlink_status(target, error)); ++links) {
      check<IoError>(links < 40, path, ": cannot follow the link: ", errno_text(ELOOP));  // Linux stops there too
      const fs::path next = fs::read_symlink(target, error);
      check<IoError>(!error, path, ": cannot follow the link: ", error.message());
      target = target.parent_path() / next;
    }
    return target.string();  // a missing folder is open's to report
  }

  [[noreturn]] void give_up(const char* what, int code) {
    discard();
    fail<IoError>(path_, ": ", what, ": ", errno_text(code),
                  code == ENOSPC || code == EDQUOT || code == EFBIG
                      ? "; nothing was left behind, free space or raise the limit and try again"
                      : "; nothing was left behind, check the folder and try again");
  }

  void discard() noexcept {
    if (fd_ >= 0) {
      ::close(fd_);
      fd_ = -1;
    }
    if (!temporary_.empty()) {
      ::unlink(temporary_.c_str());
      temporary_.clear();
    }
    listed_.reset();
  }

  std::string path_;       // as given, for messages
  std::string target_;     // what is replaced
  std::string temporary_;  // empty once renamed or removed
  ListedTemporary listed_;
  int fd_ = -1;
};

/// Replaces `path` by a file holding exactly `text`. Throws IoError as AtomicFile does.
inline void write_text_atomically(const std::string& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

}  // namespace perft::inline PERFT_ABI

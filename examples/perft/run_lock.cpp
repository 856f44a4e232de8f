// One run at a time in a folder.

#include "run_lock.hpp"

#include <fcntl.h>     // open
#include <sys/file.h>  // flock
#include <sys/stat.h>  // which file a name is
#include <unistd.h>    // getpid

#include <cerrno>  // errno

#include "engine.hpp"  // note
#include "perft/core/error.hpp"

namespace perft::cli {

namespace {

std::string lock_file(const std::string& folder) {
  return folder + "/.lock";
}

/// What a holder writes into the file, for the message of the one it keeps out.
std::string this_process() {
  char host[256] = {};
  const bool named = ::gethostname(host, sizeof(host) - 1) == 0;
  return "process " + std::to_string(::getpid()) + (named ? " on " + std::string(host) : "");
}

[[noreturn]] void refuse(const std::string& folder, int fd) {
  char holder[300] = {};
  const ssize_t got = ::pread(fd, holder, sizeof(holder) - 1, 0);
  fail<IoError>(folder, ": another run is at work in it (", got > 0 ? holder : "a process that is just starting",
                "); wait until it ends, or give another --out");
}

/// Whether `fd` is the file that is now called `path`: the last holder may have removed it after we opened it.
bool is_named(int fd, const std::string& path) {
  struct stat opened {};

  struct stat named {};

  return ::fstat(fd, &opened) == 0 && ::stat(path.c_str(), &named) == 0 && opened.st_dev == named.st_dev &&
         opened.st_ino == named.st_ino;
}

}  // namespace

RunLock::RunLock(const std::string& folder) : path_(lock_file(folder)) {
  for (;;) {
    auto file = std::make_unique<detail::Descriptor>(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666));
    if (file->get() < 0 && (errno == EACCES || errno == EROFS || errno == EPERM)) {
      return;  // a finished run may be looked at where nothing can be written; whatever writes fails by itself
    }
    check<IoError>(file->get() >= 0, path_, ": cannot create the file: ", errno_text(errno),
                   "; check the folder's permissions and free space");
    if (::flock(file->get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK) {
        refuse(folder, file->get());
      }
      note(path_ + ": this file system has no locks (" + errno_text(errno) + "); see that no other run writes here");
    }
    if (!is_named(file->get(), path_)) {
      continue;
    }
    listed_.list(path_);
    file_ = std::move(file);
    const std::string text = this_process();
    (void)!::ftruncate(file_->get(), 0);  // the text only helps
    (void)!::pwrite(file_->get(), text.data(), text.size(), 0);
    return;
  }
}

RunLock::~RunLock() {
  if (file_ != nullptr) {
    ::unlink(path_.c_str());  // before the lock goes with the descriptor: it must not be another's
  }
}

void RunLock::check_free(const std::string& folder) {
  const detail::Descriptor file(::open(lock_file(folder).c_str(), O_RDWR | O_CLOEXEC));
  if (file.get() >= 0 && ::flock(file.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    refuse(folder, file.get());
  }
}

}  // namespace perft::cli

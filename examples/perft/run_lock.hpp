#pragma once
// One run at a time in a folder.

#include <memory>  // the lock
#include <string>  // paths

#include "perft/io/mapped_file.hpp"  // Descriptor
#include "perft/io/temporaries.hpp"

namespace perft::cli {

/// flock(2) on the file `.lock` of a folder, which the system takes back when the process ends, however it ends; NFS
/// has it too, between machines (a lock on the folder itself it has not). The file is removed with the lock; one that a
/// killed process left behind is locked by nobody.
class RunLock {
 public:
  /// Throws IoError if another process holds the lock, or the file cannot be made. Where the file system has no locks,
  /// or nothing may be written, there is none.
  explicit RunLock(const std::string& folder);

  ~RunLock();

  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

  /// Throws IoError if another process holds the lock of `folder`, which need not exist. Makes nothing.
  static void check_free(const std::string& folder);

 private:
  std::string path_;
  std::unique_ptr<perft::detail::Descriptor> file_;
  ListedTemporary listed_;  // a signal that ends the process at once removes the file
};

}  // namespace perft::cli

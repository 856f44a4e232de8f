#pragma once
// Making files and folders durable: fsync(2), and what it says where there is none.

#include <fcntl.h>   // open
#include <unistd.h>  // fsync

#include <cerrno>  // errno
#include <string>  // paths

#include "perft/core/error.hpp"
#include "perft/io/mapped_file.hpp"  // Descriptor, errno_text

namespace perft::inline PERFT_ABI {

namespace detail {

/// fsync(2): 0, or the errno of a real failure. A file system that has no fsync (for folders, many) is no failure.
inline int sync_descriptor(int fd) {
  const bool failed = ::fsync(fd) != 0;
  return failed && errno != EINVAL && errno != ENOTSUP && errno != ENOSYS ? errno : 0;
}

/// The folder that holds `path`.
inline std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace detail

/// Makes what was renamed, made or removed in `folder` durable; a folder that cannot be opened for that (no permission
/// to list it) stands as it is. Throws IoError if the disk refuses.
inline void sync_folder(const std::string& folder) {
  const detail::Descriptor descriptor(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const int code = descriptor.get() >= 0 ? detail::sync_descriptor(descriptor.get()) : 0;
  check<IoError>(code == 0, folder, ": cannot sync the folder: ", errno_text(code), "; check the disk");
}

}  // namespace perft::inline PERFT_ABI

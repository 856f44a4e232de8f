// Preloaded into the program by crash_test.py: counts the calls that change files below a folder, and at the one that
// is asked for kills the process, fails, or spoils what is written.
//
//   PERFT_FAULT_FOLDER  absolute; only calls on paths below it, or on itself, count
//   PERFT_FAULT_LOG     a file outside: one line "<number> <call> <path>[ <new path>]" per call, before it is made
//   PERFT_FAULT_AT      the number of the call, from 1
//   PERFT_FAULT_MODE    kill-before, kill-after, kill-half (a write puts half of its bytes and the process dies),
//                       ENOSPC (a write puts half, then nothing can be written, made or renamed), EIO (this and every
//                       later call fails), flip (one bit of what is written is another), SIGINT, SIGTERM (sent before),
//                       stop-after (SIGSTOP), no-locks (whatever the number: flock fails as where there are none)

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

enum { kMostDescriptors = 1024 };

enum Effect { kPass, kFail, kHalf, kFlip, kKillAfter };

static char folder[PATH_MAX];
static const char* mode = "";
static long fault_at = -1;
static long calls = 0;
static int log_fd = -1;
static char paths[kMostDescriptors][PATH_MAX];  // of descriptors below the folder that are open; "" for others

__attribute__((constructor)) static void start(void) {
  const char* value = getenv("PERFT_FAULT_FOLDER");
  snprintf(folder, sizeof(folder), "%s", value != NULL ? value : "");
  if ((value = getenv("PERFT_FAULT_MODE")) != NULL) {
    mode = value;
  }
  if ((value = getenv("PERFT_FAULT_AT")) != NULL) {
    fault_at = atol(value);
  }
  if ((value = getenv("PERFT_FAULT_LOG")) != NULL) {
    log_fd = (int)syscall(SYS_openat, AT_FDCWD, value, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  }
}

// `path` relative to `dir` as an absolute one, and whether it is the folder or below it.
static int absolute(char* out, int dir, const char* path) {
  char base[PATH_MAX] = "";
  if (path[0] != '/') {
    if (dir == AT_FDCWD) {
      if (getcwd(base, sizeof(base)) == NULL) {
        return 0;
      }
    } else {
      char link[64];
      snprintf(link, sizeof(link), "/proc/self/fd/%d", dir);
      const ssize_t got = readlink(link, base, sizeof(base) - 1);
      base[got < 0 ? 0 : got] = '\0';
    }
  }
  if (snprintf(out, PATH_MAX, "%s%s%s", base, path[0] != '/' ? "/" : "", path) >= PATH_MAX) {
    return 0;
  }
  const size_t length = strlen(folder);
  return length > 0 && strncmp(out, folder, length) == 0 && (out[length] == '\0' || out[length] == '/');
}

static void die(void) {
  syscall(SYS_kill, syscall(SYS_getpid), strcmp(mode, "stop-after") == 0 ? SIGSTOP : SIGKILL);
}

// Counts a call; what is to become of it. `frees`: it makes room, so that a full disk does not refuse it.
static enum Effect count(const char* call, const char* path, const char* other, int frees) {
  ++calls;
  if (log_fd >= 0) {
    char line[2 * PATH_MAX + 64];
    const int length = snprintf(line, sizeof(line), "%ld %s %s%s%s\n", calls, call, path, other != NULL ? " " : "",
                                other != NULL ? other : "");
    if (syscall(SYS_write, log_fd, line, (size_t)length) != length) {
      abort();
    }
  }
  if (fault_at < 0 || calls < fault_at) {
    return kPass;
  }
  const int first = calls == fault_at;
  const int writes = strcmp(call, "write") == 0;
  if (strcmp(mode, "ENOSPC") == 0) {
    errno = ENOSPC;
    return frees ? kPass : first && writes ? kHalf : kFail;
  }
  if (strcmp(mode, "EIO") == 0) {
    errno = EIO;
    return kFail;
  }
  if (!first) {
    return kPass;
  }
  if (strcmp(mode, "kill-before") == 0) {
    die();
  }
  if (strncmp(mode, "SIG", 3) == 0) {
    syscall(SYS_kill, syscall(SYS_getpid), strcmp(mode, "SIGINT") == 0 ? SIGINT : SIGTERM);
    return kPass;
  }
  if (strcmp(mode, "kill-half") == 0) {
    return writes ? kHalf : kKillAfter;
  }
  return strcmp(mode, "flip") == 0 ? kFlip : kKillAfter;
}

static const char* path_of(int fd) {
  return fd >= 0 && fd < kMostDescriptors && paths[fd][0] != '\0' ? paths[fd] : NULL;
}

// The end of every wrapper.
#define FINISH(effect, result)         \
  do {                                 \
    const int saved = errno;           \
    if ((effect) == kKillAfter) die(); \
    errno = saved;                     \
    return (result);                   \
  } while (0)

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int open_at(int dir, const char* path, int flags, mode_t permissions) {
  char full[PATH_MAX];
  const int inside = absolute(full, dir, path);
  enum Effect effect = kPass;
  if (inside && (flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)) != 0) {
    effect = count("open", full, NULL, 0);
    if (effect == kFail) {
      return -1;
    }
  }
  const int fd = (int)syscall(SYS_openat, dir, path, flags, permissions);
  if (fd >= 0 && fd < kMostDescriptors) {
    snprintf(paths[fd], PATH_MAX, "%s", inside ? full : "");
  }
  FINISH(effect, fd);
}

#define OPEN(name)                                                           \
  int name(const char* path, int flags, ...) {                               \
    va_list rest;                                                            \
    va_start(rest, flags);                                                   \
    const mode_t permissions = (flags & O_CREAT) ? va_arg(rest, mode_t) : 0; \
    va_end(rest);                                                            \
    return open_at(AT_FDCWD, path, flags, permissions);                      \
  }
#define OPENAT(name)                                                         \
  int name(int dir, const char* path, int flags, ...) {                      \
    va_list rest;                                                            \
    va_start(rest, flags);                                                   \
    const mode_t permissions = (flags & O_CREAT) ? va_arg(rest, mode_t) : 0; \
    va_end(rest);                                                            \
    return open_at(dir, path, flags, permissions);                           \
  }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

int __open_2(const char* path, int flags);
int __open64_2(const char* path, int flags);

int __open_2(const char* path, int flags) {
  return open_at(AT_FDCWD, path, flags, 0);
}

int __open64_2(const char* path, int flags) {
  return open_at(AT_FDCWD, path, flags, 0);
}

int creat(const char* path, mode_t permissions) {
  return open_at(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, permissions);
}

int creat64(const char* path, mode_t permissions) {
  return creat(path, permissions);
}

// write(2) at the file's position, or pwrite(2) if `at` is not negative.
static ssize_t put(int fd, const void* data, size_t bytes, off_t at) {
  return at < 0 ? syscall(SYS_write, fd, data, bytes) : syscall(SYS_pwrite64, fd, data, bytes, at);
}

static ssize_t write_at(int fd, const void* data, size_t bytes, off_t at) {
  const char* path = path_of(fd);
  const enum Effect effect = path == NULL ? kPass : count("write", path, NULL, 0);
  if (effect == kFail) {
    return -1;
  }
  if (effect == kHalf) {
    const int full = strcmp(mode, "ENOSPC") == 0;
    const ssize_t half = put(fd, data, bytes / 2, at);
    if (!full) {
      die();
    }
    errno = ENOSPC;
    return half > 0 ? half : -1;
  }
  if (effect == kFlip && bytes > 0) {
    char* copy = malloc(bytes);
    memcpy(copy, data, bytes);
    copy[bytes / 2] ^= 0x10;
    const ssize_t done = put(fd, copy, bytes, at);
    free(copy);
    return done;
  }
  const ssize_t done = put(fd, data, bytes, at);
  FINISH(effect, done);
}

ssize_t write(int fd, const void* data, size_t bytes) {
  return write_at(fd, data, bytes, -1);
}

ssize_t pwrite(int fd, const void* data, size_t bytes, off_t at) {
  return write_at(fd, data, bytes, at);
}

ssize_t pwrite64(int fd, const void* data, size_t bytes, off64_t at) {
  return write_at(fd, data, bytes, at);
}

#define ON_DESCRIPTOR(name, frees, parameters, arguments)                              \
  int name parameters {                                                                \
    const char* path = path_of(fd);                                                    \
    const enum Effect effect = path == NULL ? kPass : count(#name, path, NULL, frees); \
    if (effect == kFail) return -1;                                                    \
    const int done = REAL(name) arguments;                                             \
    FINISH(effect, done);                                                              \
  }
ON_DESCRIPTOR(fsync, 0, (int fd), (fd))
ON_DESCRIPTOR(fdatasync, 0, (int fd), (fd))
ON_DESCRIPTOR(ftruncate, 1, (int fd, off_t size), (fd, size))
ON_DESCRIPTOR(ftruncate64, 1, (int fd, off64_t size), (fd, size))

int close(int fd) {
  const char* path = path_of(fd);
  enum Effect effect = kPass;
  if (path != NULL) {
    const int flags = (int)syscall(SYS_fcntl, fd, F_GETFL);
    effect = (flags & (O_WRONLY | O_RDWR)) != 0 ? count("close", path, NULL, 1) : kPass;
    paths[fd][0] = '\0';
  }
  const int done = (int)syscall(SYS_close, fd);  // as Linux does: closed even where it fails
  if (effect == kFail) {
    errno = EIO;
    return -1;
  }
  FINISH(effect, done);
}

static int rename_at(int from_dir, const char* from, int to_dir, const char* to, unsigned flags) {
  char full_from[PATH_MAX];
  char full_to[PATH_MAX];
  const int inside = absolute(full_from, from_dir, from);
  const enum Effect effect = absolute(full_to, to_dir, to) || inside ? count("rename", full_from, full_to, 0) : kPass;
  if (effect == kFail) {
    return -1;
  }
  const int done = (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
  FINISH(effect, done);
}

int rename(const char* from, const char* to) {
  return rename_at(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int renameat(int from_dir, const char* from, int to_dir, const char* to) {
  return rename_at(from_dir, from, to_dir, to, 0);
}

int renameat2(int from_dir, const char* from, int to_dir, const char* to, unsigned flags) {
  return rename_at(from_dir, from, to_dir, to, flags);
}

int flock(int fd, int operation) {
  if (strcmp(mode, "no-locks") == 0) {
    errno = ENOLCK;
    return -1;
  }
  return (int)syscall(SYS_flock, fd, operation);
}

#define ON_PATH(name, call, frees, dir, parameters, arguments)                                     \
  int name parameters {                                                                            \
    char full[PATH_MAX];                                                                           \
    const enum Effect effect = absolute(full, dir, path) ? count(call, full, NULL, frees) : kPass; \
    if (effect == kFail) return -1;                                                                \
    const int done = REAL(name) arguments;                                                         \
    FINISH(effect, done);                                                                          \
  }
ON_PATH(mkdir, "mkdir", 0, AT_FDCWD, (const char* path, mode_t permissions), (path, permissions))
ON_PATH(mkdirat, "mkdir", 0, dir, (int dir, const char* path, mode_t permissions), (dir, path, permissions))
ON_PATH(unlink, "unlink", 1, AT_FDCWD, (const char* path), (path))
ON_PATH(unlinkat, "unlink", 1, dir, (int dir, const char* path, int flags), (dir, path, flags))
ON_PATH(rmdir, "rmdir", 1, AT_FDCWD, (const char* path), (path))
ON_PATH(remove, "remove", 1, AT_FDCWD, (const char* path), (path))
ON_PATH(truncate, "truncate", 1, AT_FDCWD, (const char* path, off_t size), (path, size))

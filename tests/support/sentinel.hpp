#pragma once
// A buffer with sentinels before and after it: finds writes outside an output, with or without a sanitizer.

#include <cstddef>      // std::byte, std::size_t
#include <cstring>      // std::memset
#include <new>          // aligned allocation
#include <ostream>      // Catch2 prints results through <<
#include <span>         // views
#include <stdexcept>    // std::invalid_argument
#include <string>       // messages
#include <type_traits>  // std::is_trivially_copyable_v

namespace support {

/// Result of Guarded::check: `CHECK(buffer.check())`.
struct SentinelResult {
  bool ok = true;
  std::string message = "no sentinel was touched";

  explicit operator bool() const { return ok; }
};

inline std::ostream& operator<<(std::ostream& out, const SentinelResult& result) {
  return out << result.message;
}

/// `count` elements of T between two guard zones of kGuardBytes. The first element lies `misalign` elements past a
/// 64-byte boundary, so that kernels are tried on addresses that vector loads do not like. Elements start as all-ones
/// bytes (NaN in every float format), so that an output left unwritten fails the comparison.
/// Throws std::invalid_argument if misalign · sizeof(T) ≥ 64.
template <class T>
requires std::is_trivially_copyable_v<T>

class Guarded {
 public:
  static constexpr std::size_t kGuardBytes = 256;
  static constexpr std::size_t kAlignment = 64;

  explicit Guarded(std::size_t count, std::size_t misalign = 0)
      : count_(count), front_(kGuardBytes + misalign * sizeof(T)) {
    if (misalign * sizeof(T) >= kAlignment) throw std::invalid_argument("Guarded: misalign is 64 bytes or more");
    total_ = front_ + count * sizeof(T) + kGuardBytes;
    bytes_ = static_cast<std::byte*>(::operator new (total_, std::align_val_t{kAlignment}));
    for (std::size_t i = 0; i < total_; ++i) bytes_[i] = sentinel(i);
    if (count > 0) std::memset(bytes_ + front_, 0xff, count * sizeof(T));
  }

  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  ~Guarded() { ::operator delete (bytes_, std::align_val_t{kAlignment}); }

  T* data() { return reinterpret_cast<T*>(bytes_ + front_); }

  const T* data() const { return reinterpret_cast<const T*>(bytes_ + front_); }

  std::size_t size() const { return count_; }

  std::span<T> span() { return {data(), count_}; }

  std::span<const T> span() const { return {data(), count_}; }

  T& operator[](std::size_t i) { return data()[i]; }

  /// Whether every sentinel byte is as it was; if not, where the nearest damaged one lies relative to the elements.
  SentinelResult check() const {
    const std::size_t end = front_ + count_ * sizeof(T);
    for (std::size_t i = front_; i-- > 0;) {
      if (bytes_[i] != sentinel(i)) {
        return {false, "written " + std::to_string(front_ - i) + " bytes before the first element"};
      }
    }
    for (std::size_t i = end; i < total_; ++i) {
      if (bytes_[i] != sentinel(i)) {
        return {false, "written " + std::to_string(i - end + 1) + " bytes past the last element"};
      }
    }
    return {};
  }

 private:
  // Differs from byte to byte: a kernel that copies its neighbourhood cannot reproduce it by accident.
  static std::byte sentinel(std::size_t i) { return static_cast<std::byte>((i * 167U + 0x5bU) & 0xffU); }

  std::size_t count_;
  std::size_t front_;
  std::size_t total_ = 0;
  std::byte* bytes_ = nullptr;
};

}  // namespace support

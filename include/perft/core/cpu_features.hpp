#pragma once
// Which instruction set the kernels use: found at run time, lowered by PERFT_ISA, fixed at first use.

#include <atomic>       // the level is read by every kernel call
#include <cstdlib>      // std::getenv
#include <string_view>  // level names

#include "perft/core/config.hpp"
#include "perft/core/error.hpp"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>        // __get_cpuid_count
#include <sys/syscall.h>  // SYS_arch_prctl: permission for the AMX tile state
#include <unistd.h>       // syscall
#endif

namespace perft::inline PERFT_ABI {

/// Instruction-set levels, each containing those below it. avx2 means AVX2 + FMA + F16C; avx512 means F, BW, DQ, VL and
/// CD.
enum class Isa : int { portable, avx2, avx512, avx512_bf16, amx };

constexpr std::string_view isa_name(Isa isa) {
  constexpr std::string_view names[] = {"portable", "avx2", "avx512", "avx512_bf16", "amx"};
  return names[static_cast<int>(isa)];
}

/// The level named by `text`; ValueError if there is none.
inline Isa parse_isa(std::string_view text) {
  for (int i = 0; i <= static_cast<int>(Isa::amx); ++i) {
    if (text == isa_name(static_cast<Isa>(i))) {
      return static_cast<Isa>(i);
    }
  }
  fail<ValueError>("PERFT_ISA is \"", text, "\", expected portable, avx2, avx512, avx512_bf16 or amx");
}

namespace detail {

#if defined(__x86_64__) && defined(__linux__)
inline unsigned long long xcr0() {
  unsigned eax = 0;
  unsigned edx = 0;
  __asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
  return (static_cast<unsigned long long>(edx) << 32) | eax;
}

inline Isa detect_isa() {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  const auto has = [](unsigned word, int bit) { return ((word >> bit) & 1U) != 0; };
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || !has(c, 27) || !has(c, 28) || !has(c, 12) || !has(c, 29)) {
    return Isa::portable;  // OSXSAVE, AVX, FMA, F16C
  }
  const unsigned long long state = xcr0();
  if ((state & 0x6U) != 0x6U || __get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || !has(b, 5)) {
    return Isa::portable;
  }
  const unsigned leaf7_d = d;
  const bool avx512 = (state & 0xe6U) == 0xe6U && has(b, 16) && has(b, 17) && has(b, 28) && has(b, 30) && has(b, 31);
  if (!avx512) {
    return Isa::avx2;
  }
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d) == 0 || !has(a, 5)) {
    return Isa::avx512;
  }
  const bool amx = has(leaf7_d, 22) && has(leaf7_d, 24) && (state & 0x60000U) == 0x60000U;
  constexpr int request_permission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int tile_data = 18;               // XFEATURE_XTILEDATA
  if (!amx || syscall(SYS_arch_prctl, request_permission, tile_data) != 0) {
    return Isa::avx512_bf16;
  }
  return Isa::amx;
}
#else
inline Isa detect_isa() {
  return Isa::portable;
}
#endif

inline std::atomic<int>& isa_level() {
  static std::atomic<int> level{-1};
  return level;
}

}  // namespace detail

/// The best level this machine and its kernel allow.
inline Isa available_isa() {
  static const Isa isa = detail::detect_isa();
  return isa;
}

/// The level in use: available_isa(), or PERFT_ISA if that is lower. ValueError if PERFT_ISA names no level.
inline Isa active_isa() {
  const int level = detail::isa_level().load(std::memory_order_relaxed);
  if (level >= 0) [[likely]] {
    return static_cast<Isa>(level);
  }
  Isa isa = available_isa();
  if (const char* text = std::getenv("PERFT_ISA"); text != nullptr && *text != '\0') {
    const Isa asked = parse_isa(text);
    isa = asked < isa ? asked : isa;
  }
  detail::isa_level().store(static_cast<int>(isa), std::memory_order_relaxed);
  return isa;
}

/// For tests: uses `isa` (or the best available if that is lower) while it lives. Not while a job runs.
class ScopedIsa {
 public:
  explicit ScopedIsa(Isa isa) : before_(active_isa()) {
    const Isa best = available_isa();
    detail::isa_level().store(static_cast<int>(isa < best ? isa : best), std::memory_order_relaxed);
  }

  ~ScopedIsa() { detail::isa_level().store(static_cast<int>(before_), std::memory_order_relaxed); }

  ScopedIsa(const ScopedIsa&) = delete;
  ScopedIsa& operator=(const ScopedIsa&) = delete;

 private:
  Isa before_;
};

}  // namespace perft::inline PERFT_ABI

#pragma once
// Version, and the inline namespace that keeps translation units built with different PERFT_* switches apart.

#define PERFT_VERSION_MAJOR 0
#define PERFT_VERSION_MINOR 1
#define PERFT_VERSION_PATCH 0
#define PERFT_VERSION "0.1.0"

#if !defined(__GNUC__) || defined(__clang__) || __GNUC__ < 12
#error "perft needs GCC 12 or newer: its kernels are compiled per instruction set by #pragma GCC target"
#endif

// PERFT_ONEDNN=1 lets oneDNN compute the matrix products it is faster at (core/gemm/onednn.hpp). A header-only library
// compiled twice with different switches would otherwise merge silently at link time; with the switch in every mangled
// name it cannot.
#if defined(PERFT_ONEDNN) && PERFT_ONEDNN
#define PERFT_ABI v0_1_onednn
#else
#define PERFT_ABI v0_1
#endif

namespace perft::inline PERFT_ABI {}

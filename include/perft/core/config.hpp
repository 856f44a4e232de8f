#pragma once
// Version, and the inline namespace that keeps translation units built with different PERFT_* switches apart.

#define PERFT_VERSION_MAJOR 0
#define PERFT_VERSION_MINOR 1
#define PERFT_VERSION_PATCH 0
#define PERFT_VERSION "0.1.0"

// PERFT_ONEDNN=1 is reserved for a oneDNN GEMM backend, which is not there yet. A header-only library compiled twice
// with different switches would otherwise merge silently at link time; with the switch in every mangled name it cannot.
#if defined(PERFT_ONEDNN) && PERFT_ONEDNN
#define PERFT_ABI v0_1_onednn
#else
#define PERFT_ABI v0_1
#endif

namespace perft::inline PERFT_ABI {}

#pragma once
// Devices are types: an op a device lacks is a compile error, because functions are found by overload on them.

#include "perft/core/config.hpp"

namespace perft::inline PERFT_ABI {

/// Host memory and this library's thread pool. Always there.
struct Cpu {};

/// What a device must say about its memory; specialised per device.
/// `allocate(bytes)` returns a shared owner of at least `bytes` bytes.
template <class Device>
struct DeviceMemory;

}  // namespace perft::inline PERFT_ABI

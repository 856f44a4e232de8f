#pragma once
// CausalLm's name, for headers that hand models on without looking into them.

#include "perft/core/device.hpp"
#include "perft/core/dtype.hpp"

namespace perft::inline PERFT_ABI {

template <ComputeType C, class Device = Cpu>
class CausalLm;

}  // namespace perft::inline PERFT_ABI

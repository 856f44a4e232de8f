// The matrix products of the program, compiled once for all its translation units (PERFT_EXTERN_TEMPLATES).

#include "perft/core/gemm.hpp"

namespace perft::inline PERFT_ABI {

namespace gemm {

template void run<float>(std::span<const Problem<float>>);
template void run<double>(std::span<const Problem<double>>);
template void run<bf16>(std::span<const Problem<bf16>>);

}  // namespace gemm

}  // namespace perft::inline PERFT_ABI

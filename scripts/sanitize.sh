#!/usr/bin/env bash
# Builds one sanitizer preset and runs its tests; any finding is a failed test.
#   scripts/sanitize.sh asan    all tests of the library
#   scripts/sanitize.sh tsan    the tests that change the number of threads, less those of whole models
set -euo pipefail
preset=${1:?usage: scripts/sanitize.sh asan|tsan}
cd "$(dirname "$0")/.."

cmake --preset "$preset"
cmake --build --preset "$preset"

# GCC 12's ThreadSanitizer cannot place its shadow under a kernel with 32 bits of address randomisation.
run=()
if setarch "$(uname -m)" -R true 2>/dev/null; then
  run=(setarch "$(uname -m)" -R)
fi
exec "${run[@]}" ctest --preset "$preset" -j "$(nproc)"

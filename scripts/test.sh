#!/usr/bin/env bash
# Everything that must hold: builds the release preset, runs every test and check, and both sanitizer builds.
# Ends with ctest's summary of all of it; exits non-zero if anything in it failed.
#   scripts/test.sh            all of it (what CI runs)
#   scripts/test.sh --quick    without the sanitizer builds
set -euo pipefail
cd "$(dirname "$0")/.."

sanitizers=ON
case "${1-}" in
  "") ;;
  --quick) sanitizers=OFF ;;
  *)
    echo "scripts/test.sh: unknown option $1; the only one is --quick" >&2
    exit 2
    ;;
esac

bash scripts/setup.sh
cmake --preset release -DPERFT_TESTS=ON -DPERFT_EXAMPLES=ON -DPERFT_WERROR=ON -DPERFT_SANITIZER_TESTS=$sanitizers
cmake --build --preset release
python3 tools/compile_times.py build/release
exec ctest --preset release -j "$(nproc)"

#!/usr/bin/env bash
# Compiles every header of the library alone, twice over in one translation unit: it must bring its own includes and
# guard itself.
#   tools/check_headers.sh COMPILER [FLAG…]
set -euo pipefail
cd "$(dirname "$0")/.."

export compile="$* -std=c++20 -fsyntax-only -pthread -Iinclude"
find include -name '*.hpp' | sort | xargs -P 2 -I{} bash -c '
  name={}; name=${name#include/}
  printf "#include \"%s\"\n#include \"%s\"\n" "$name" "$name" | $compile -x c++ - || { echo "not alone: {}"; exit 1; }'
echo "every header compiles alone"

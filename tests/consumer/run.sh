#!/usr/bin/env bash
# Builds and runs the consumer project along one route.
#   run.sh subdirectory|package SOURCE BUILD COMPILER
set -euo pipefail
route=$1 source=$2 build=$3 compiler=$4
folder=$build/consumer/$route
rm -rf "$folder"
mkdir -p "$folder"

options=(-DROUTE="$route" -DCMAKE_CXX_COMPILER="$compiler")
if [[ $route == package ]]; then
  cmake --install "$build" --prefix "$folder/prefix" >/dev/null
  options+=(-DCMAKE_PREFIX_PATH="$folder/prefix")
else
  options+=(-DPERFT_SOURCE="$source")
fi
cmake -G Ninja -S "$source/tests/consumer" -B "$folder/build" "${options[@]}"
cmake --build "$folder/build"
"$folder/build/core"
"$folder/build/everything"

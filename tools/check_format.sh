#!/usr/bin/env bash
# Checks that clang-format 14 (Debian 12's; other versions format differently) would change nothing.
#   tools/check_format.sh          lists what it would change
#   tools/check_format.sh --fix    changes it
set -euo pipefail
cd "$(dirname "$0")/.."

format=$(command -v clang-format-14 || command -v clang-format || true)
if [[ -z $format ]] || ! "$format" --version | grep -q 'version 14\.'; then
  echo "clang-format 14 is not installed; formatting was not checked"
  exit 77
fi
mapfile -t files < <(find include examples bench tests cuda -name '*.hpp' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')
if [[ ${1-} == --fix ]]; then
  exec "$format" -i "${files[@]}"
fi
"$format" --dry-run -Werror "${files[@]}"
echo "${#files[@]} files are formatted"

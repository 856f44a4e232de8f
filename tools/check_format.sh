#!/usr/bin/env bash
# Checks that clang-format 14 (Debian 12's; other versions format differently) would change nothing.
#   tools/check_format.sh          shows what it would change
#   tools/check_format.sh --fix    changes it
set -euo pipefail
cd "$(dirname "$0")/.."

format=$(command -v clang-format-14 || command -v clang-format || true)
if [[ -z $format ]] || ! "$format" --version | grep -q 'version 14\.'; then
  echo "clang-format 14 is not installed; formatting was not checked"
  exit 77
fi
mapfile -t files < <(find include examples bench tests cuda \( -name '*.hpp' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) -type f | sort)
if [[ ${1-} == --fix ]]; then
  exec "$format" -i "${files[@]}"
fi

# Not --dry-run: it reports the closing comment of `namespace perft::inline PERFT_ABI`, which it then leaves as it is.
wrong=0
for file in "${files[@]}"; do
  if ! difference=$("$format" "$file" | diff --label "$file" --label "$file formatted" -u "$file" -); then
    echo "$difference"
    wrong=$((wrong + 1))
  fi
done
if ((wrong > 0)); then
  echo "$wrong of ${#files[@]} files are not formatted; run tools/check_format.sh --fix"
  exit 1
fi
echo "${#files[@]} files are formatted"

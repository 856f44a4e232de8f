#!/usr/bin/env bash
# scripts/demo.sh from end to end, smaller: it ends well, which it does only if the loss on held-back rows fell by more
# than 3 standard errors, and shows what it says it shows.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
PERFT_DEMO_TEST=$folder/demo bash "$(dirname "$0")/../../scripts/demo.sh" | tee "$folder/shown"
for line in '^olmoe model, 2 layers' '^mlp.perft.router ' '^rows  *2,000 ' '^perft-r adapter for olmoe' \
  '^ *0  ' '^ *6  ' '^ *12  ' '^ *fall  '; do
  grep -q "$line" "$folder/shown" || { echo "demo_test.sh: no line like '$line'"; exit 1; }
done

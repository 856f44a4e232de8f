#!/usr/bin/env bash
# scripts/demo.sh from end to end: it ends well, which it does only if training lowered the loss on held-back rows by more
# than 3 standard errors and shuffled solutions did not, and shows what it says it shows.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
PERFT_DEMO_TEST=$folder/demo bash "$(dirname "$0")/../../scripts/demo.sh" | tee "$folder/shown"
for line in '^olmoe model, 5 layers' '^mlp.perft.router ' '^rows  *1,000 ' '^base, before training ' '^PERFT-R, 4 experts, 2 used  *87,040 ' \
  '^qvLoRA  *87,040 ' '^PERFT-R, solutions shuffled  *87,040 '; do
  grep -q "$line" "$folder/shown" || { echo "demo_test.sh: no line like '$line'"; exit 1; }
done

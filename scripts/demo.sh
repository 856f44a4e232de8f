#!/usr/bin/env bash
# A whole fine-tuning run in under five minutes: makes a small random OLMoE checkpoint with the real OLMoE tokenizer,
# fine-tunes it with PERFT-R on real commonsense rows, and shows the loss on held-back rows before and after. Exits
# non-zero if the loss did not fall by more than 3 standard errors. The model is made and the rows are in demo/data;
# only what scripts/setup.sh installs may have to be fetched.
#   scripts/demo.sh            leaves everything in build/demo
#   PERFT_DEMO_TEST=FOLDER     the same with PERFT_BINARY as it is, a smaller model and fewer steps, in FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${PERFT_DEMO_TEST:-}" ]; then
  bash scripts/setup.sh
  cmake --preset release
  cmake --build --preset release --target perft_program example_make_checkpoint
  bin=build/release/bin
  demo=build/demo
  size=()
  length=(--max-steps 80 --batch-size 16 --val-size 120 --eval-every 20 --save-every 80 --lr 3e-3 --warmup 10)
else
  bin=$(dirname "$PERFT_BINARY")
  demo=$PERFT_DEMO_TEST
  size=(--hidden 64 --layers 2 --heads 4 --experts 8 --top-k 2 --inner 32)
  length=(--max-steps 12 --batch-size 8 --val-size 24 --eval-every 6 --save-every 12 --lr 3e-2 --warmup 2)
fi
rm -rf "$demo"
mkdir -p "$demo"

echo
echo "== 1. A base model: OLMoE's architecture and tokenizer, random weights"
"$bin/make_checkpoint" --out "$demo/base" --tokenizer tests/fixtures/tokenizers/olmoe/tokenizer.json --seed 1 "${size[@]}"
"$bin/perft" inspect "$demo/base"

echo
echo "== 2. PERFT-R on it: 4 experts of rank 8 beside each MoE block, 2 of them per token, the base frozen"
data=demo/data
SECONDS=0
"$bin/perft" finetune --model "$demo/base" --out "$demo/run" \
  --data "$data/boolq.json,$data/openbookqa.json,$data/ARC-Easy.json,$data/ARC-Challenge.json" \
  --method perft-r --experts 4 --top-k 2 --rank 8 --prompt alpaca "${length[@]}"
echo "(${SECONDS} s)"

echo
echo "== 3. What was learned"
"$bin/perft" inspect "$demo/run"

echo
echo "== 4. Loss on the held-back rows"
python3 scripts/demo_table.py "$demo/run/metrics.jsonl" "$demo/base/config.json"
echo "The curves: $demo/run/report.html"

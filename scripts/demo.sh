#!/usr/bin/env bash
# Fine-tunes the small OLMoE checkpoint in demo/model on word problems that it has never seen: with PERFT-R, with LoRA on
# q and v (qvLoRA) of the same number of trained parameters, and with PERFT-R on the same rows with their solutions
# shuffled. Ends in a table of losses on held-back rows and a report to open; exits non-zero unless the first two fell
# by more than 3 standard errors and the shuffled one did not. Nothing is downloaded but what scripts/setup.sh installs.
#   scripts/demo.sh            leaves everything in build/demo
#   PERFT_DEMO_TEST=FOLDER     the same with PERFT_BINARY as it is and half the steps, in FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${PERFT_DEMO_TEST:-}" ]; then
  bash scripts/setup.sh
  cmake --preset release
  cmake --build --preset release --target perft_program
  perft=build/release/bin/perft
  demo=build/demo
  length=(--max-steps 110 --eval-every 55 --save-every 110)
else
  perft=$PERFT_BINARY
  demo=$PERFT_DEMO_TEST
  length=(--max-steps 55 --eval-every 55 --save-every 55)
fi
model=demo/model
rows=demo/data/math_train.json
rm -rf "$demo"
mkdir -p "$demo"

echo
echo "== 1. The base: OLMoE's architecture, trained on commonsense and word problems by examples/pretrain.cpp"
"$perft" inspect "$model"

echo
echo "== 2. The rows: a question, and which tokens of it are trained"
"$perft" data show --model "$model" --data "$rows" --rows 0 --train-on-inputs false
"$perft" data show --model "$model" --data "$rows" --val-size 240 --rows 0-239 --split validation --json > "$demo/held_back.json"
python3 scripts/demo_shuffle.py "$rows" "$demo/held_back.json" "$demo/shuffled.json"

finetune() {
  local name=$1 data=$2
  shift 2
  "$perft" finetune --model "$model" --data "$data" --out "$demo/$name" --train-on-inputs false --val-size 240 \
    --batch-size 16 --lr 1e-3 --warmup 10 "${length[@]}" "$@"
  "$perft" inspect "$demo/$name" --json > "$demo/$name/contents.json"
}

echo
echo "== 3. PERFT-R: 4 experts of rank 8 beside each MoE block, 2 of them per token, the base frozen"
finetune perft-r "$rows" --method perft-r --experts 4 --top-k 2 --rank 8
echo
echo "== 4. qvLoRA: rank 17 on q and v"
finetune lora "$rows" --method lora --lora-targets q_proj,v_proj --rank 17
echo
echo "== 5. PERFT-R again, every solution under another row's question"
finetune shuffled "$demo/shuffled.json" --method perft-r --experts 4 --top-k 2 --rank 8

echo
echo "== 6. The same 240 held-back rows, never trained on by base or adapter"
echo
python3 scripts/demo_table.py "PERFT-R, 4 experts, 2 used=$demo/perft-r" "qvLoRA=$demo/lora" \
  "PERFT-R, solutions shuffled=$demo/shuffled:control"
echo
echo "The curves and the routers: $demo/perft-r/report.html"

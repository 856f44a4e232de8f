#!/usr/bin/env python3
"""The validation losses of a run as a table; exit code 1 if the loss did not fall by more than 3 standard errors.

usage: demo_table.py metrics.jsonl config.json
"""

import json
import math
import sys

lines = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
vocabulary = json.load(open(sys.argv[2], encoding="utf-8"))["vocab_size"]
found = [(line["step"], line["val_loss"], line["val_standard_error"]) for line in lines if "val_loss" in line]
if len(found) < 2:
    sys.exit(f"{sys.argv[1]}: fewer than two validations, expected one before step 1 and one at the end")

print(f"{'step':>6}  {'loss, mean ± standard error':>28}  {'perplexity':>10}")
for step, loss, error in found:
    print(f"{step:>6}  {f'{loss:.4f} ± {error:.4f}':>28}  {math.exp(loss):>10.1f}")
(_, before, error_before), (_, after, error_after) = found[0], found[-1]
fall, error = before - after, math.hypot(error_before, error_after)
print(f"{'fall':>6}  {f'{fall:.4f} ± {error:.4f}':>28}  ({fall / error if error > 0 else math.inf:.0f} standard errors)")
print(f"""
Guessing every one of {vocabulary:,} tokens alike costs {math.log(vocabulary):.4f}; a random base starts there.
What this shows: tokenizer, rows, routing, forward, backward, AdamW and saving work together, and adapters beside a frozen
base learn from real rows what carries over to rows they have not seen.
What it cannot show: how good PERFT is. A random base knows no language, so its adapters learn little more than which words
these rows use, and nothing of the answers. For that, give perft finetune a pretrained OLMoE or Mixtral folder.""")
if not fall > 3 * error:
    sys.exit("demo: the loss on held-back rows did not fall by more than 3 standard errors")

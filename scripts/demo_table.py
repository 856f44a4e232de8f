#!/usr/bin/env python3
"""Runs on the same held-back rows in one table: the loss after training, and its change with a paired standard error.
Exit code 1 if a run did not do what it is there to show.

usage: demo_table.py NAME=RUN[:control] ...        RUN: a run's folder; control: its loss must not fall
"""

import json
import sys

failed = []
print(f"{'':<28} {'parameters':>10}  {'loss on held-back rows':>22}  {'change':>20}  {'in errors':>9}")
for argument in sys.argv[1:]:
    name, _, folder = argument.partition("=")
    folder, _, control = folder.partition(":")
    with open(f"{folder}/metrics.jsonl", encoding="utf-8") as file:
        found = [line for line in map(json.loads, file) if "val_loss" in line]
    with open(f"{folder}/contents.json", encoding="utf-8") as file:
        parameters = json.load(file)["parameters"]
    if len(found) < 2:
        sys.exit(f"{folder}/metrics.jsonl: fewer than two validations, expected one before step 1 and one at the end")
    first, last = found[0], found[-1]
    if argument == sys.argv[1]:
        loss = f"{first['val_loss']:.4f} ± {first['val_standard_error']:.4f}"
        print(f"{'base, before training':<28} {'':>10}  {loss:>22}")
    change, error = last["val_change"], last["val_change_standard_error"]
    loss = f"{last['val_loss']:.4f} ± {last['val_standard_error']:.4f}"
    print(f"{name:<28} {parameters:>10,}  {loss:>22}  {f'{change:+.4f} ± {error:.4f}':>20}  {change / error:>+9.1f}")
    if control and not change > -3 * error:
        failed.append(f"{name}: the loss fell, though the answers it trained on belong to other questions")
    if not control and not change < -3 * error:
        failed.append(f"{name}: the loss did not fall by more than 3 standard errors")
print("""
± of a loss: how much another draw of rows would move it; all lines have the same rows, so it says little about their
difference. ± of a change: the same for the difference to the base, row by row.
What this shows: adapters beside a frozen base learn from real questions and worked solutions what carries over to rows that
neither the base nor the adapter has seen, and nothing of it from the same solutions under the wrong questions.
What it cannot show: how good PERFT is against LoRA (rate and number of steps were chosen by looking at runs of PERFT-R on
these rows), or right answers. The base has 10 million parameters and answers nothing
above chance; for that, give perft finetune a pretrained OLMoE or Mixtral folder.""")
for line in failed:
    print(f"demo: {line}", file=sys.stderr)
sys.exit(1 if failed else 0)

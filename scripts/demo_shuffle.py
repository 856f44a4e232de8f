#!/usr/bin/env python3
"""Rows whose outputs are shuffled among the rows to train; the held-back rows keep theirs.

usage: demo_shuffle.py rows.json held_back.json out.json      (held_back.json: perft data show --split validation --json)
"""

import json
import random
import sys

rows = json.load(open(sys.argv[1], encoding="utf-8"))
held_back = {row["row"] for row in json.load(open(sys.argv[2], encoding="utf-8"))["rows"]}
trained = [i for i in range(len(rows)) if i not in held_back]
if not held_back or not trained:
    sys.exit(f"{sys.argv[2]}: {len(held_back)} of {len(rows)} rows held back, expected some but not all")
outputs = [rows[i]["output"] for i in trained]
random.Random(1).shuffle(outputs)
for i, output in zip(trained, outputs):
    rows[i] = dict(rows[i], output=output)
with open(sys.argv[3], "w", encoding="utf-8") as file:
    json.dump(rows, file)

#!/usr/bin/env python3
"""Picks the demo's rows out of the commonsense training files of LLM-Adapters: every n-th row of each, 500 in all.

usage: select.py LLM-ADAPTERS/dataset OUT
"""

import json
import pathlib
import sys

TASKS = ["boolq", "openbookqa", "ARC-Easy", "ARC-Challenge"]
ROWS = 500

source, out = map(pathlib.Path, sys.argv[1:])
for task in TASKS:
    rows = json.loads((source / task / "train.json").read_text(encoding="utf-8"))
    picked = [rows[i * len(rows) // ROWS] for i in range(ROWS)]
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in picked)
    (out / f"{task}.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")

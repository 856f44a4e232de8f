#!/usr/bin/env python3
"""Picks the demo's rows out of training files of LLM-Adapters: every n-th row of each, 500 of a commonsense task and
1,000 of arithmetic. None of them is in the text that demo/model was trained on.

usage: select.py COMMONSENSE MATH_TRAIN.json OUT
       COMMONSENSE/<task>/train.json is `dataset/<task>/train.json` there, MATH_TRAIN.json its arithmetic training rows
"""

import json
import pathlib
import sys

TASKS = ["boolq", "openbookqa", "ARC-Easy", "ARC-Challenge"]


def pick(source, count, out):
    rows = json.loads(source.read_text(encoding="utf-8"))
    picked = [rows[i * len(rows) // count] for i in range(count)]
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in picked)
    out.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


commonsense, math, out = map(pathlib.Path, sys.argv[1:])
for task in TASKS:
    pick(commonsense / task / "train.json", 500, out / f"{task}.json")
pick(math, 1000, out / "math_train.json")

#!/usr/bin/env python3
"""A run's event file is read by the tensorboard package. Skipped where that is not installed.

Environment: PERFT_BINARY (make_checkpoint is looked for beside it), PERFT_FIXTURES.
"""
import json
import math
import os
import subprocess
import sys
import tempfile

try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError:
    print("tensorboard is not installed")
    sys.exit(77)

BINARY = os.environ["PERFT_BINARY"]
TOKENIZER = os.path.join(os.environ["PERFT_FIXTURES"], "tokenizers", "olmoe", "tokenizer.json")


def main():
    with tempfile.TemporaryDirectory(prefix="perft-tensorboard-") as work:
        model, rows, run = (os.path.join(work, name) for name in ("model", "rows.json", "run"))
        subprocess.run([os.path.join(os.path.dirname(BINARY), "make_checkpoint"), "--out", model, "--tokenizer", TOKENIZER, "--hidden",
                        "32", "--layers", "1", "--heads", "2", "--experts", "4", "--top-k", "2", "--inner", "16"], check=True,
                       stdout=subprocess.DEVNULL)
        with open(rows, "w") as out:
            json.dump([{"instruction": f"Say {i}.", "output": str(i)} for i in range(24)], out)
        subprocess.run([BINARY, "finetune", "--model", model, "--data", rows, "--out", run, "--method", "perft-s", "--max-steps", "5",
                        "--eval-every", "2", "--val-size", "4", "--batch-size", "4"], check=True, stdout=subprocess.DEVNULL)
        with open(os.path.join(run, "metrics.jsonl")) as file:
            lines = [json.loads(line) for line in file]
        read = EventAccumulator(run)
        read.Reload()
        for key, tag in (("train_loss", "train/loss"), ("lr", "train/lr"), ("val_loss", "validation/loss")):
            expected = [(line["step"], line[key]) for line in lines if key in line]
            found = [(event.step, event.value) for event in read.Scalars(tag)]
            same = len(expected) == len(found) and all(a[0] == b[0] and math.isclose(a[1], b[1], rel_tol=1e-6)
                                                       for a, b in zip(expected, found))
            if not same:
                print(f"FAILED: {tag}: {found}, expected {expected}")
                return 1
    print("tensorboard reads what metrics.jsonl holds")
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Training throughput of `perft finetune` and of another program on the same checkpoint, alternated.

usage: train_pair.py --perft build/release/bin/perft --model DIR [--rounds 5] [--batch 2] [--tokens 256] [--threads 2]
                     [--peer "COMMAND"] [--json OUT.json]

Each round runs perft (PERFT-R 4-2, r 8, bf16, no dropout, aux loss on, rows of exactly --tokens tokens, one micro-batch)
and then COMMAND, which must print a last line of JSON with `train_tok_s`; the medians over the rounds and their ratio are
reported. Nothing else should be running. DIR needs a tokenizer.json. perft's number is the median of its steps after the
first, read from metrics.jsonl, in tokens per second: what the peer's scripts report of themselves.
"""
import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))


def long_rows(folder, tokens):
    """Rows of real text, each longer than the cutoff."""
    with open(os.path.join(HERE, "..", "..", "demo", "data", "boolq.json")) as file:
        text = " ".join(row["instruction"] for row in json.load(file))
    size = tokens * 8
    rows = [{"instruction": text[i:i + size], "output": "ok"} for i in range(0, min(len(text) - size, 64 * size), size)]
    path = os.path.join(folder, "rows.json")
    with open(path, "w") as file:
        json.dump(rows, file)
    return path


def run_perft(args, steps=5):
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "run")
        command = [args.perft, "finetune", "--model", args.model, "--data", long_rows(folder, args.tokens), "--out", out,
                   "--method", "perft-r", "--experts", "4", "--top-k", "2", "--rank", "8", "--dropout", "0", "--dtype", "bf16",
                   "--threads", str(args.threads), "--batch-size", str(args.batch), "--micro-batch-size", str(args.batch),
                   "--cutoff", str(args.tokens), "--max-steps", str(steps + 1), "--val-size", "0", "--warmup", "0", "--json"]
        result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        with open(os.path.join(out, "metrics.jsonl")) as file:
            lines = [line for line in map(json.loads, file) if "train_loss" in line]
    assert all(line["tokens"] == args.batch * args.tokens for line in lines), "rows shorter than --tokens"
    seconds = [line["seconds"] for line in lines[1:]]
    return args.batch * args.tokens / statistics.median(seconds), result["peak_anonymous_bytes"]


def cpu_model():
    try:
        with open("/proc/cpuinfo") as file:
            lines = dict(line.split(":", 1) for line in file if ":" in line)
        fields = {key.strip(): value.strip() for key, value in lines.items()}
        flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in fields.get("flags", "").split()]
        return f"{fields.get('model name', '?')} ({' '.join(flags)})"
    except OSError:
        return platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--perft", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer")
    parser.add_argument("--json")
    args = parser.parse_args()
    ours, theirs, memory = [], [], 0
    for _ in range(args.rounds):
        rate, memory = run_perft(args)
        ours.append(rate)
        if args.peer:
            done = subprocess.run(shlex.split(args.peer), check=True, capture_output=True, text=True)
            theirs.append(json.loads(done.stdout.splitlines()[-1])["train_tok_s"])
        print(f"perft {ours[-1]:.1f}" + (f"  peer {theirs[-1]:.1f}" if theirs else ""), flush=True)
    report = {"model": os.path.basename(os.path.normpath(args.model)), "machine": cpu_model(), "threads": args.threads,
              "batch": args.batch, "tokens": args.tokens, "rounds": args.rounds, "load_1min": os.getloadavg()[0],
              "perft_tokens_per_second": round(statistics.median(ours), 1), "perft_all": [round(x, 1) for x in ours],
              "perft_peak_anonymous_bytes": memory}
    if theirs:
        report.update(peer_tokens_per_second=round(statistics.median(theirs), 1), peer_all=[round(x, 1) for x in theirs],
                      ratio=round(statistics.median(ours) / statistics.median(theirs), 3))
    print(json.dumps(report))
    if args.json:
        with open(args.json, "w") as file:
            json.dump(report, file, indent=1)
            file.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""GEMM beside its rivals in one run: perft's kernels, perft with everything oneDNN can compute left to it, and PyTorch if installed.

usage: gemm_table.py BENCH_FOLDER [--seconds 0.1] [--json OUT.json]     e.g. build/release/bench

Prints a Markdown table: best GF/s of perft / oneDNN / PyTorch (n/a where a program lacks it), one row per type, direction, shape and
threads, and what share of the machine's roof perft's best row of each type and threads is (the roof: that type's best number of all).
Nothing else should be running.
"""
import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
CASE = re.compile(r"^(gemm|grouped64)/(bf16|f32)/(forward|dgrad)/M:(\d+)/N:(\d+)/K:(\d+)/threads:(\d+)")


def perft(program, seconds, use):
    """Best GF/s by case, and the instruction set."""
    done = subprocess.run([program, f"--benchmark_min_time={seconds}", "--benchmark_format=json"], check=True, text=True,
                          capture_output=True, env={**os.environ, "PERFT_ONEDNN_USE": use})
    report = json.loads(done.stdout)
    found = {CASE.match(row["name"]).groups(): row["best"] for row in report["benchmarks"]}
    return found, report["context"]["isa"]


def torch(seconds):
    if importlib.util.find_spec("torch") is None:
        return {}
    found = {}
    for threads in ("1", "2"):
        for grouped in ([], ["--grouped"]):
            done = subprocess.run([sys.executable, os.path.join(HERE, "gemm_torch.py"), threads, str(seconds), *grouped], check=True,
                                  text=True, capture_output=True)
            for line in done.stdout.splitlines():
                found[CASE.match(line).groups()] = float(re.search(r"best=([\d.]+)", line)[1])
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--seconds", type=float, default=0.1)
    parser.add_argument("--json")
    args = parser.parse_args()
    program = os.path.join(args.folder, "gemm_bench")
    own, isa = perft(program, args.seconds, "never")
    columns = {"perft": own, "oneDNN": perft(program, args.seconds, "always")[0], "PyTorch": torch(args.seconds)}
    rows = {}
    for case in own:
        rows.setdefault((case[0], case[1], case[2], case[4], case[5], case[6]), []).append(int(case[3]))
    print(f"Instruction set {isa}, load {os.getloadavg()[0]:.2f}. Best GF/s: {' / '.join(columns)}.\n")
    sizes = sorted({m for values in rows.values() for m in values})
    print("| what, N×K, threads | " + " | ".join(f"M={m}" for m in sizes) + " |")
    print("|---" * (len(sizes) + 1) + "|")
    for key, values in rows.items():
        kind, dtype, direction, n, k, threads = key
        cells = []
        for m in sizes:
            case = (kind, dtype, direction, str(m), n, k, threads)
            cells.append(" / ".join(f"{column[case]:.0f}" if case in column else "n/a" for column in columns.values())
                         if m in values else "")
        print(f"| {kind} {dtype} {direction} {n}×{k}, {threads} | " + " | ".join(cells) + " |")
    print()
    for dtype in ("bf16", "f32"):
        for threads in ("1", "2"):
            best = {name: max((v for c, v in column.items() if c[1] == dtype and c[6] == threads), default=0.0)
                    for name, column in columns.items()}
            roof = max(best.values())
            print(f"{dtype}, {threads} thread(s): roof {roof:.0f} GF/s, perft {100 * best['perft'] / roof:.0f} % of it")
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"isa": isa, "unit": "GF/s, best call", "load": os.getloadavg()[0],
                       **{name: {"/".join(case): value for case, value in column.items()} for name, column in columns.items()}},
                      file, indent=1)
            file.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

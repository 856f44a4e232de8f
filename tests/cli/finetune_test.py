#!/usr/bin/env python3
"""perft finetune as a user runs it: every method trains, runs repeat byte for byte, resuming changes nothing.

Environment: PERFT_BINARY (make_checkpoint is looked for beside it), PERFT_FIXTURES.
"""
import filecmp
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

BINARY = os.environ["PERFT_BINARY"]
MAKE_CHECKPOINT = os.path.join(os.path.dirname(BINARY), "make_checkpoint")
TOKENIZER = os.path.join(os.environ["PERFT_FIXTURES"], "tokenizers", "olmoe", "tokenizer.json")
WEIGHTS = "adapter_model.safetensors"

work = tempfile.mkdtemp(prefix="perft-finetune-")
model = os.path.join(work, "model")
data = os.path.join(work, "rows.json")
failures = []


def check(condition, text):
    if not condition:
        failures.append(text)
        print("FAILED:", text)


COMMON = ["--json", "--dtype", "f32", "--lr", "5e-3", "--warmup", "2", "--batch-size", "4", "--val-size", "8", "--eval-every",
          "3", "--save-every", "3", "--cutoff", "48"]


def given(common, i, options):
    """Whether word i of `common` is an option (or its value) that `options` gives too."""
    name = common[i] if common[i].startswith("--") else common[i - 1]
    return name in options


def finetune(out, *options, ok=True, method="perft-r"):
    common = [word for i, word in enumerate(COMMON) if not given(COMMON, i, options)]
    command = [BINARY, "finetune", "--model", model, "--data", data, "--out", os.path.join(work, out), "--method", method,
               *common, *options]
    done = subprocess.run(command, capture_output=True, text=True)
    check((done.returncode == 0) == ok, f"{out}: exit code {done.returncode}: {done.stderr.strip()}")
    if not ok:
        check(done.stdout == "" and done.stderr.count("\n") == 1 and done.stderr.startswith("perft: error: "),
              f"{out}: not one error line: {done.stderr!r} {done.stdout!r}")
        return done.stderr
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}


def metrics(out):
    with open(os.path.join(work, out, "metrics.jsonl")) as lines:
        return [json.loads(line) for line in lines]


def same(a, b, name=WEIGHTS):
    return filecmp.cmp(os.path.join(work, a, name), os.path.join(work, b, name), shallow=False)


def prepare():
    subprocess.run([MAKE_CHECKPOINT, "--out", model, "--tokenizer", TOKENIZER, "--hidden", "32", "--layers", "2", "--heads", "2",
                    "--experts", "8", "--top-k", "2", "--inner", "16", "--seed", "3"], check=True, stdout=subprocess.DEVNULL)
    rows = [{"instruction": f"What is {a} plus {b}?", "input": "" if a % 2 else f"Think of {a}.", "output": f"It is {a + b}."}
            for a in range(8) for b in range(6)]
    with open(data, "w") as out:
        json.dump(rows, out)


def methods():
    extra = {"perft-s": [], "perft-d": ["--experts", "2"], "perft-r": ["--experts", "4", "--top-k", "2"], "perft-e": [],
             "lora": ["--lora-targets", "q_proj,v_proj,gate,gate_proj,up_proj,down_proj"], "full": []}
    for method, options in extra.items():
        rank = [] if method == "full" else ["--rank", "4"]
        result = finetune(method, "--max-steps", "6", *rank, *options, method=method)
        first = [line for line in metrics(method) if "val_loss" in line][0]
        check(result["steps"] == 6 and result["val_loss"] < first["val_loss"],
              f"{method}: validation loss {first['val_loss']} -> {result.get('val_loss')}")
        for key in ("tokens", "tokens_per_second", "train_loss", "best_val_loss", "trainable_parameters", "peak_rss_bytes",
                    "peak_anonymous_bytes", "wall_seconds"):
            check(isinstance(result.get(key), (int, float)), f"{method}: --json lacks {key}")
    finetune("parallel", "--max-steps", "3", "--rank", "4", "--delta", "parallel")
    check(os.path.exists(os.path.join(work, "full", "model.safetensors")), "full: no hub checkpoint")
    inspect = subprocess.run([BINARY, "inspect", os.path.join(work, "full")], capture_output=True, text=True)
    check(inspect.returncode == 0, f"full: the written checkpoint is refused: {inspect.stderr}")


def repeats():
    a = finetune("a", "--max-steps", "8")
    b = finetune("b", "--max-steps", "8", "--threads", "1")
    check(same("a", "b"), "1 thread and the default number give different weights")
    check(a["val_loss"] == b["val_loss"], "1 thread and the default number give different losses")
    split = finetune("split", "--max-steps", "8", "--micro-batch-size", "1", "--aux-coef", "0")
    whole = finetune("whole", "--max-steps", "8", "--micro-batch-size", "4", "--aux-coef", "0")
    check(abs(split["train_loss"] - whole["train_loss"]) < 1e-4, "1x4 and 4x1 micro-batches give different losses")
    other = finetune("seed", "--max-steps", "8", "--seed", "7")
    check(other["train_loss"] != a["train_loss"], "the seed changes nothing")


def stopped_and_resumed(name, method, weights, *options):
    """An uninterrupted run and one that SIGINT stops and --resume finishes, with less memory, end in the same bytes."""
    whole, stopped = f"{name}-whole", f"{name}-stopped"
    steps = ["--max-steps", "40", *options]
    finetune(whole, *steps, method=method)
    command = [BINARY, "finetune", "--model", model, "--data", data, "--out", os.path.join(work, stopped), "--method", method,
               *COMMON, *steps]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    path = os.path.join(work, stopped, "metrics.jsonl")
    for _ in range(60000):
        if os.path.exists(path) and sum(1 for _ in open(path)) >= 5 or process.poll() is not None:
            break
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    process.communicate()
    check(process.returncode == 130, f"{name}: SIGINT in a run of 40 steps: exit code {process.returncode}, expected 130")
    check(len(metrics(stopped)) < len(metrics(whole)), f"{name}: nothing was left to resume")
    finetune(stopped, *steps, "--resume", "--memory-budget", "0.001", method=method)
    check(same(whole, stopped, weights), f"{name}: interrupted and resumed differs from uninterrupted")
    lines = metrics(stopped)
    check([line["step"] for line in lines if "lr" in line] == list(range(1, 41)), f"{name}: a step is missing or twice")
    check(len(lines) == len(metrics(whole)), f"{name}: the resumed metrics.jsonl has another number of lines")
    return stopped, steps


def resumes():
    stopped, steps = stopped_and_resumed("adapter", "perft-r", WEIGHTS)
    before = os.stat(os.path.join(work, stopped, WEIGHTS)).st_mtime_ns
    finetune(stopped, *steps, "--resume")
    check(os.stat(os.path.join(work, stopped, WEIGHTS)).st_mtime_ns == before, "--resume of a finished run wrote weights")
    os.remove(os.path.join(work, stopped, WEIGHTS))
    finetune(stopped, *steps, "--resume")
    check(same("adapter-whole", stopped), "--resume did not finish what a killed run had not put in place")
    text = finetune(stopped, *steps, "--resume", "--keep", "9", ok=False)
    check("--keep" in text, f"--resume with another option: {text!r}")
    text = finetune(stopped, *steps, ok=False)
    check("--resume" in text, f"an --out that holds a run: {text!r}")
    stopped_and_resumed("full", "full", "model.safetensors", "--keep", "1")


def refuses_numbers_that_are_not_finite():
    text = finetune("overflow", "--max-steps", "1", "--val-size", "0", "--warmup", "0", "--lr", "1e39", ok=False)
    check("not finite" in text and not os.path.exists(os.path.join(work, "overflow")), f"weights that overflow: {text!r}")


def saved_adapter_is_the_best():
    import struct
    finetune("best", "--max-steps", "6")
    lines = [line for line in metrics("best") if "val_loss" in line and line["step"] > 0]
    best = min(lines, key=lambda line: line["val_loss"])["step"]
    checkpoint = os.path.join("best", f"checkpoint-{best}")
    check(same("best", checkpoint), "the run's adapter is not that of its best checkpoint")
    with open(os.path.join(work, "best", WEIGHTS), "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    check(all(tensor["dtype"] == "F32" for tensor in header.values()), "adapter tensors are not F32")


def main():
    if not os.path.exists(MAKE_CHECKPOINT):
        print(f"{MAKE_CHECKPOINT}: not built")
        return 1
    try:
        prepare()
        for part in (methods, repeats, resumes, saved_adapter_is_the_best, refuses_numbers_that_are_not_finite):
            part()
    finally:
        shutil.rmtree(work)
    print("failures:", len(failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""pretrain as a user runs it, on a tiny model: the loss falls, two runs give the same bytes, no evaluated row is trained on, and
the checkpoint is one that perft inspects and fine-tunes and that transformers (where it is installed) loads.

Environment: PERFT_BINARY (pretrain is looked for beside it).
"""

import array
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import tempfile

import tensor_files

PERFT = os.environ["PERFT_BINARY"]
PRETRAIN = os.path.join(os.path.dirname(PERFT), "pretrain")
ROWS = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, os.pardir, "demo", "data")
DEMO_MODEL = os.path.join(ROWS, os.pardir, "model")
TASKS = ["boolq", "openbookqa", "ARC-Easy", "ARC-Challenge"]
ARITHMETIC = ["AddSub", "MultiArith", "SingleEq", "gsm8k"]
VOCABULARY = 400
STEPS = 20
TINY = ["--tokenizer-vocab", str(VOCABULARY), "--hidden", "32", "--layers", "2", "--heads", "2", "--experts", "4", "--top-k", "2",
        "--inner", "16", "--context", "128", "--steps", str(STEPS), "--batch-tokens", "512", "--val-size", "10", "--warmup", "3",
        "--report-every", "5", "--eval-every", "10", "--lr", "1e-2"]


def row_hash(row):
    key = re.sub(rb"[^a-z0-9]", b"", row["instruction"].encode().lower())
    return hashlib.sha256(key).hexdigest()[:16]


def write(path, rows):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as out:
        json.dump(rows, out)


def make_data(top):
    """A data folder of demo rows. Returns the hashes of the rows that must not be trained on, and of all train rows."""
    evaluated, train = set(), set()

    def put(name, rows, into):
        write(os.path.join(top, name), rows)
        into.update(map(row_hash, rows))

    for task in TASKS:
        with open(os.path.join(ROWS, task + ".json"), encoding="utf-8") as file:
            rows = json.load(file)
        put(f"commonsense/{task}/train.json", rows[:40] + rows[:1], train)  # one row twice
        # The second row recurs in the test file, in capitals and with other spaces.
        again = dict(rows[1], instruction=" " + rows[1]["instruction"].upper().replace(" ", "  "))
        put(f"commonsense/{task}/test.json", [again, rows[45]], evaluated)
    with open(os.path.join(ROWS, "math_train.json"), encoding="utf-8") as file:
        rows = json.load(file)
    put("math/train.json", rows[:60], train)
    for i, task in enumerate(ARITHMETIC):
        put(f"math/{task}/unseen.json", [rows[i], rows[80 + i]], evaluated)
    put("held_out.json", rows[10:13], evaluated)
    return evaluated, train


def pretrain(top, out, *options, code=0):
    command = [PRETRAIN, "--data", top, "--out", os.path.join(top, out), "--held-out", os.path.join(top, "held_out.json"), *TINY]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == code, (options, done.returncode, done.stdout, done.stderr)
    if code != 0:
        assert done.stderr.startswith("pretrain: error: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr if code else done.stdout


def read(*path):
    with open(os.path.join(*path), "rb") as file:
        return file.read()


def test_training(top, evaluated, train):
    model = os.path.join(top, "a")
    pretrain(top, "a", "--threads", "2")
    record = json.loads(read(model, "training.json"))
    assert record["finished"] and record["steps"] == STEPS, record
    assert [point["step"] for point in record["curve"]] == [5, 10, 15, 20], record["curve"]
    first, last = record["curve"][1], record["curve"][-1]
    assert last["validation"] < first["validation"] < math.log(VOCABULARY), record["curve"]
    assert last["train"] < record["curve"][0]["train"] - 0.5, record["curve"]
    assert record["command"].startswith("pretrain --data ") and record["parameters"] > 10000, record

    lines = read(model, "rows.txt").decode().split()
    assert set(lines) == train - evaluated and lines == sorted(set(lines)), "rows.txt is not the rows that are not evaluated"
    corpus = record["corpus"]
    assert corpus["rows_txt_sha256"] == hashlib.sha256(read(model, "rows.txt")).hexdigest()
    assert corpus["rows"] == len(lines) == corpus["train_rows"] + corpus["validation_rows"], corpus
    assert corpus["validation_rows"] == 10 and corpus["left_out_as_duplicate"] == len(TASKS), corpus
    assert corpus["left_out_as_evaluated"] == len(TASKS) + len(ARITHMETIC) + 3, corpus
    assert len(corpus["train_files"]) == 5 and len(corpus["held_out_files"]) == 9, corpus
    for entry in corpus["train_files"] + corpus["held_out_files"]:
        assert entry["sha256"] == hashlib.sha256(read(entry["path"])).hexdigest(), entry
    assert sum(entry["used"] for entry in corpus["train_files"]) == len(lines), corpus


def test_repeats(top):
    pretrain(top, "b", "--threads", "1")
    for name in ("model.safetensors", "tokenizer.json", "config.json", "rows.txt"):
        assert read(top, "a", name) == read(top, "b", name), name
    pretrain(top, "c", "--seed", "2")
    assert read(top, "a", "model.safetensors") != read(top, "c", "model.safetensors")


def test_use(top):
    model = os.path.join(top, "a")
    shown = subprocess.run([PERFT, "inspect", model], capture_output=True, text=True, check=True, timeout=60).stdout
    assert "olmoe" in shown.lower(), shown
    rows = os.path.join(top, "held_out.json")
    for method in (["--method", "perft-r", "--experts", "4", "--top-k", "2", "--rank", "4"], ["--method", "full"]):
        run = os.path.join(top, "run-" + method[1])
        command = [PERFT, "finetune", "--model", model, "--data", rows, "--out", run, *method, "--max-steps", "2", "--val-size", "1",
                   "--batch-size", "2", "--save-every", "2", "--eval-every", "2"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, (method, done.stderr)


def token_ids(folder, text):
    printed = subprocess.run([PERFT, "tokenize", "--model", folder], input=json.dumps(text) + "\n", capture_output=True, text=True,
                             check=True, timeout=60).stdout
    return json.loads(printed)


def score(top, folder, ids):
    """perft score's tensors for one text."""
    batch, out = os.path.join(top, "batch.safetensors"), os.path.join(top, "out.safetensors")
    tensors = {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": ids}
    tensor_files.write(batch, {name: tensor_files.Tensor("I64", [1, len(ids)], array.array("q", values).tobytes())
                               for name, values in tensors.items()})
    subprocess.run([PERFT, "score", "--model", folder, "--input", batch, "--output", out, "--dtype", "f32"], check=True,
                   stdout=subprocess.DEVNULL, timeout=60)
    return tensor_files.read(out)[1]


def test_transformers(top):
    """transformers reads tokenizer and weights, and gives the ids and the logits that perft gives."""
    try:
        import torch
        from transformers import AutoTokenizer, OlmoeForCausalLM
    except ImportError:
        print("transformers is not installed: its side was left out")
        return
    text = json.loads(read(top, "held_out.json"))[0]["instruction"] + " na\u00efve \U0001f600"
    for folder in (os.path.join(top, "a"), DEMO_MODEL):
        model = OlmoeForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1)
        ids = tokenizer(text).input_ids
        assert token_ids(folder, text) == ids, (folder, ids)
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits.flatten().tolist()
        ours = score(top, folder, ids)["logits"].values
        worst = max(abs(a - b) for a, b in zip(ours, logits))
        assert len(ours) == len(logits) and worst < 1e-4, (folder, worst)


def test_committed(top):
    """The checkpoint in demo/model is a finished one, and has learned what rows look like that it was not trained on."""
    record = json.loads(read(DEMO_MODEL, "training.json"))
    assert record["finished"], record
    assert sum(entry.stat().st_size for entry in os.scandir(DEMO_MODEL)) < 25e6
    with open(os.path.join(ROWS, "boolq.json"), encoding="utf-8") as file:
        row = json.load(file)[0]
    text = f"{row['instruction']}\n{row['output']}"
    loss = score(top, DEMO_MODEL, token_ids(DEMO_MODEL, text))["lm_loss"].values[0]
    assert loss < 0.5 * math.log(4096), loss  # log 4096: every token alike, as random weights have it


def test_errors(top):
    def refused(words, *options):
        message = pretrain(top, "refused", *options, code=1)
        assert words in message, (options, message)
        assert not os.path.exists(os.path.join(top, "refused", "config.json")), options

    refused("unknown option --epochs", "--epochs", "3")
    refused("--steps is 'x', expected a whole number of at least 0", "--steps", "x")
    refused("--lr is 'inf', expected a number of at least 0", "--lr", "inf")
    refused("--steps is 0, expected at least 1", "--steps", "0")
    refused("--seed needs a value", "--seed")
    refused("missing --data DIR or --out DIR", "--data", "")
    refused("a vocabulary of 257 tokens, expected at least 258", "--tokenizer-vocab", "257")
    refused("num_attention_heads is 5, expected a divisor of hidden_size (32)", "--heads", "5")
    refused("leaves no row", "--val-size", "100000")
    refused("none.json", "--held-out", os.path.join(top, "none.json"))
    refused("test.json", "--data", os.path.join(top, "commonsense"))
    everything = [os.path.join(top, "commonsense", task, "train.json") for task in TASKS] + [os.path.join(top, "math", "train.json")]
    refused("nothing is left to train on", "--held-out", ",".join(everything))
    message = pretrain(top, "a", code=1)
    assert "holds a checkpoint already" in message, message


def main():
    top = tempfile.mkdtemp(prefix="perft-pretrain-")
    try:
        evaluated, train = make_data(top)
        test_training(top, evaluated, train)
        test_repeats(top)
        test_use(top)
        test_errors(top)
        test_committed(top)
        test_transformers(top)
    finally:
        shutil.rmtree(top)


if __name__ == "__main__":
    main()

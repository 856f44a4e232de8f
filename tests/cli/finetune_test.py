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
    rows = [] if "--data" in options else ["--data", data]
    command = [BINARY, "finetune", "--model", model, *rows, "--out", os.path.join(work, out), "--method", method, *common, *options]
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
        steps = [line for line in metrics(method) if "lr" in line]
        check(all(line["activation_bytes"] > 0 for line in steps), f"{method}: no activations are kept for backward: {steps}")
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


def shapes_of_resuming():
    """What a resumed run may change, and what it takes over from run.toml when it is not given."""
    finetune("shape", "--max-steps", "6", "--micro-batch-size", "2")
    weights = os.path.join(work, "shape", WEIGHTS)
    before = open(weights, "rb").read()
    result = finetune("shape", "--resume")
    check(result["steps"] == 6 and open(weights, "rb").read() == before, "--resume without --max-steps does not take 6 steps")
    finetune("e", "--max-steps", "3", method="perft-e")
    result = finetune("e", "--max-steps", "4", "--experts", "8", "--resume", method="perft-e")
    check(result["steps"] == 4, "perft-e: --experts with the base's number is another run when resumed")
    result = finetune("e", "--max-steps", "5", "--resume", method="perft-e")
    check(result["steps"] == 5, "perft-e: leaving --experts out is another run when resumed")
    os.remove(os.path.join(work, "e", "run.toml"))
    text = finetune("e", "--max-steps", "6", "--resume", ok=False, method="perft-e")
    check("run.toml: is missing" in text, f"a run without run.toml: {text!r}")
    text = finetune("shape", "--max-steps", "2", "--resume", ok=False)
    check("has 6 steps and this one 2" in text, f"a shorter run is resumed: {text!r}")
    os.rename(os.path.join(work, "shape"), os.path.join(work, "moved"))
    check(finetune("./moved", "--max-steps", "9", "--resume")["steps"] == 9, "a moved run does not go on to more steps")
    os.mkdir(os.path.join(work, "moved", "checkpoint-99"))
    open(os.path.join(work, "moved", "checkpoint-98"), "w").close()
    check(finetune("moved", "--max-steps", "10", "--resume")["steps"] == 10, "an empty checkpoint-99 is taken for a checkpoint")
    set_counter("moved/checkpoint-10", 1, 2)  # the best state's checkpoint, and the result, are gone
    os.remove(os.path.join(work, "moved", WEIGHTS))
    text = finetune("moved", "--max-steps", "10", "--resume", ok=False)
    check("checkpoint-2: holds no " + WEIGHTS in text, f"a best state that is gone: {text!r}")
    set_counter("moved/checkpoint-10", 0, -7)
    text = finetune("moved", "--max-steps", "12", "--resume", ok=False)
    check("not those of step 10" in text, f"counters that lie: {text!r}")


def set_counter(checkpoint, index, value):
    """Changes one of training_state.safetensors' counters: step, best step, tokens."""
    path = os.path.join(work, checkpoint, "training_state.safetensors")
    with open(path, "rb") as file:
        content = bytearray(file.read())
    header = int.from_bytes(content[:8], "little")
    begin = json.loads(content[8:8 + header])["counters"]["data_offsets"][0] + 8 + header + 8 * index
    content[begin:begin + 8] = value.to_bytes(8, "little", signed=True)
    with open(path, "wb") as file:
        file.write(content)


def losses_of_data_and_folders():
    """Nothing that is there is replaced or removed, and rows that teach nothing are not trained on."""
    weights = os.path.join(model, "model.safetensors")
    before = open(weights, "rb").read()
    for method in ("full", "perft-r"):
        text = finetune("model", "--max-steps", "1", "--val-size", "0", ok=False, method=method)
        check("--model" in text and open(weights, "rb").read() == before, f"{method}: --out is the model: {text!r}")
    os.makedirs(os.path.join(work, "mine"))
    finetune("mine", "--max-steps", "1", "--val-size", "0", "--warmup", "0", "--lr", "1e39", ok=False)
    check(os.path.isdir(os.path.join(work, "mine")), "a failed run removed a folder of the user's")
    finetune("par/x/y", "--max-steps", "1", "--val-size", "0", "--warmup", "0", "--lr", "1e39", ok=False)
    check(not os.path.exists(os.path.join(work, "par")), "a failed run left folders that it had made")
    # Of seven rows one has an answer within the cutoff: whichever part it falls into, the other has nothing to learn.
    few = os.path.join(work, "few.json")
    with open(few, "w") as file:
        json.dump([{"instruction": "word " * (1 if i == 0 else 200), "output": "yes"} for i in range(7)], file)
    seen = set()
    for seed in range(20):
        text = finetune("masked", "--data", few, "--max-steps", "1", "--train-on-inputs", "false", "--cutoff", "64", "--val-size", "2",
                        "--seed", str(seed), ok=False)
        seen.add("left to train on" if "left to train on keeps a label" in text else "held-back" if "held-back rows keeps" in text else text)
    check(seen == {"left to train on", "held-back"} and not os.path.exists(os.path.join(work, "masked")), f"rows without a target: {seen}")


def tables_come_first():
    """Without --json the tables stand before the first loss, with it they do too; the last line alone is JSON."""
    command = [BINARY, "finetune", "--model", model, "--data", data, "--out", os.path.join(work, "shown"), "--method", "perft-r",
               "--experts", "4", "--rank", "4", "--max-steps", "1", "--dtype", "f32", "--val-size", "8", "--batch-size", "4",
               "--cutoff", "48", "--micro-batch-size", "2", "--memory-budget", "1", "--prompt", "perft-paper"]
    shown = subprocess.run(command, capture_output=True, text=True)
    lines = shown.stdout.splitlines()
    check(shown.returncode == 0 and shown.stderr == "", f"tables: {shown.returncode} {shown.stderr!r}")
    table = [line.split() for line in lines]
    # 2 layers, hidden 32: A [4, 32] and B [32, 4] of 4 experts, and the router [4, 32].
    check(["mlp.perft.experts.*.lora_A", "2", "8", "1,024"] in [row[:4] for row in table], f"trained table: {lines[:5]}")
    check(["mlp.perft.experts.*.lora_B", "2", "8", "1,024"] in [row[:4] for row in table], f"trained table: {lines[:5]}")
    check(["mlp.perft.router", "2", "2", "256"] in [row[:4] for row in table], f"trained table: {lines[:5]}")
    check(["all", "2", "18", "2,304"] in [row[:4] for row in table], f"trained table: {lines[:5]}")
    check("rows                           48   (40 to train, 8 held back)" in lines, "data table: rows")
    # The published prompt with an input is longer than 48 tokens, and every other row has one.
    check("rows without EOS               24" in lines and "truncated rows                 24   (cutoff 48 tokens)" in lines,
          "data table: truncated rows")
    check("padding rows                   hf   (hf: a row's first token is scored on padding; ignore: it is not)" in lines,
          "data table: padding rows of --prompt perft-paper")
    check("micro-batch                     2   (of 4 rows; nothing computed again for backward)" in lines, "plan table")
    first = next(i for i, line in enumerate(lines) if line.startswith("step 0: validation loss"))
    check(any(line.startswith("activations") for line in lines[:first]), "the plan is not printed before step 1")
    command[command.index("--out") + 1] = os.path.join(work, "shown-json")
    with_json = subprocess.run([*command, "--json"], capture_output=True, text=True).stdout.splitlines()
    check(with_json[:first] == lines[:first] and json.loads(with_json[-1])["steps"] == 1, "--json drops the tables")


def schedule_clip_and_decay():
    """What each option does to one or a few steps, from its definition."""
    finetune("lr", "--max-steps", "5", "--warmup", "2", "--lr", "1e-3")
    rates = [line["lr"] for line in metrics("lr") if "lr" in line]
    expected = [1e-3 * f for f in (0, 1 / 2, 1, 2 / 3, 1 / 3)]  # linear to step 2, then to 0 at step 5
    check(all(abs(a - b) < 1e-12 for a, b in zip(rates, expected)), f"learning rates {rates}, expected {expected}")
    still = ["--max-steps", "1", "--warmup", "0", "--val-size", "0", "--dropout", "0"]
    finetune("free", *still, "--clip", "0")
    finetune("clipped", *still, "--clip", "1e-9")
    check(metrics("free")[0]["grad_norm"] == metrics("clipped")[0]["grad_norm"], "grad_norm is not that before clipping")
    # Adam's first step is lr * g / (|g| + 1e-8): a gradient clipped far below 1e-8 hardly moves anything.
    moved = {name: difference(name, "frozen") for name in ("free", "clipped")} if finetune("frozen", *still, "--lr", "1e-30") else {}
    check(moved["free"] > 1e-3 and moved["clipped"] < 0.2 * moved["free"], f"--clip: largest changes {moved}")
    finetune("decayed", *still, "--weight-decay", "0.5", "--clip", "1e-30", "--lr", "0.1")
    ratios = [a / b for a, b in zip(values("decayed"), values("frozen")) if abs(b) > 1e-2]
    check(ratios and all(abs(r - 0.95) < 1e-3 for r in ratios), "--weight-decay 0.5 at lr 0.1 does not shrink by 0.95")
    finetune("masked-inputs", "--max-steps", "1", "--cutoff", "128", "--train-on-inputs", "false")
    finetune("all-inputs", "--max-steps", "1", "--cutoff", "128")
    check(metrics("masked-inputs")[0]["val_loss"] != metrics("all-inputs")[0]["val_loss"], "--train-on-inputs changes nothing")
    finetune("hf", "--max-steps", "1", "--pad-rows", "hf", "--cutoff", "128")
    check(metrics("hf")[0]["val_loss"] != metrics("all-inputs")[0]["val_loss"], "--pad-rows hf changes nothing")


def routers_over_time():
    """What metrics.jsonl and report.html say of the routers; the alarms come when they should and only then."""
    finetune("routed", "--max-steps", "6", "--experts", "4", "--top-k", "2")
    lines = [line for line in metrics("routed") if "router" in line]
    check([(line["step"], line["router"]) for line in lines] == [(s, r) for s in range(1, 7) for r in ("base", "adapter")],
          f"router lines: {[(line['step'], line['router']) for line in lines]}")
    for line in lines:
        experts = len(line["load"]) // len(line["entropy"])
        check(line["window_steps"] == 1 and len(line["entropy"]) == len(line["dead"]) == len(line["busiest"]) == 2, f"{line}")
        check(experts == (4 if line["router"] == "adapter" else experts) and experts > 1, f"experts of {line}")
        for layer in range(2):
            load = line["load"][layer * experts:(layer + 1) * experts]
            check(abs(sum(load) - experts) < 0.001 * experts and 0 <= line["entropy"][layer] <= 1, f"load of {line}")
            check(line["dead"][layer] == load.count(0) and abs(line["busiest"][layer] - max(load)) < 0.002, f"dead of {line}")
    check(not any("alarm" in line for line in metrics("routed")), "an alarm without a reason")
    with open(os.path.join(work, "routed", "report.html")) as file:
        page = file.read()
    check(page.count("Entropy of the load") == 2 * 2, "report.html: heatmaps of both routers (title and label)")
    check("<h2>Alarms</h2>" not in page, "report.html: alarms without any")
    small = ["--max-steps", "4", "--router-dtype", "bf16", "--dtype", "bf16", "--lr", "1e-6", "--warmup", "0"]
    command = [BINARY, "finetune", "--model", model, "--data", data, "--out", os.path.join(work, "lost"), "--method", "perft-r",
               "--batch-size", "4", "--val-size", "0", *small]
    done = subprocess.run(command, capture_output=True, text=True)
    alarms = [line for line in metrics("lost") if "alarm" in line]
    check(alarms and alarms[0]["kind"] == "rounding" and ".perft.router.weight are lost to rounding" in alarms[0]["alarm"], f"{alarms}")
    check(done.stdout.count("ALARM") == 1, f"alarms on the screen: {done.stdout!r}")
    with open(os.path.join(work, "lost", "report.html")) as file:
        check("<h2>Alarms</h2>" in file.read(), "report.html: no alarms")


def values(out):
    """All F32 numbers of an adapter, in the file's order."""
    import array
    with open(os.path.join(work, out, WEIGHTS), "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        file.read(size)
        return array.array("f", file.read())


def difference(a, b):
    return max(abs(x - y) for x, y in zip(values(a), values(b)))


def bf16_runs():
    """The default compute type trains; with --router-dtype bf16 routers hold bf16 numbers and nothing else does."""
    import struct
    first = finetune("bf16", "--max-steps", "8", "--dtype", "bf16")
    losses = [line["val_loss"] for line in metrics("bf16") if "val_loss" in line]
    check(losses[-1] < losses[0] and first["steps"] == 8, f"bf16: validation losses {losses}")
    finetune("routers", "--max-steps", "4", "--router-dtype", "bf16", "--dtype", "bf16")
    with open(os.path.join(work, "routers", WEIGHTS), "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data_section = file.read()
    rounded = {True: set(), False: set()}
    for name, tensor in header.items():
        if name != "__metadata__":
            begin, end = tensor["data_offsets"]
            words = struct.unpack(f"<{(end - begin) // 4}I", data_section[begin:end])
            rounded[name.endswith(".perft.router.weight")].add(all(word & 0xffff == 0 for word in words))
    check(rounded[True] == {True} and rounded[False] == {False}, f"--router-dtype bf16: rounded {rounded}")


def signals_end_it():
    """SIGINT and SIGTERM: 130 and 143 while data is read, and a saved state while it trains."""
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        fifo = os.path.join(work, f"fifo-{number}")
        os.mkfifo(fifo)
        command = [BINARY, "finetune", "--model", model, "--data", fifo, "--out", os.path.join(work, f"loading-{number}"),
                   "--method", "perft-s"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(0.3)  # it blocks on opening the pipe
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
        check(process.returncode == code and out == b"" and err == b"", f"signal {number} while loading: {process.returncode}")
        check(not os.path.exists(os.path.join(work, f"loading-{number}")), f"signal {number} while loading left a folder")
    # During the validation before step 1, which takes seconds here: nothing is trained, and --resume starts the run.
    many = os.path.join(work, "many.json")
    with open(data) as rows, open(many, "w") as out:
        json.dump(json.load(rows) * 100, out)
    command = [BINARY, "finetune", "--model", model, "--data", many, "--out", os.path.join(work, "early"), "--method", "perft-r",
               *[word if word != "8" else "4700" for word in COMMON], "--max-steps", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    path = os.path.join(work, "early", "metrics.jsonl")
    while not os.path.exists(path) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    check(process.returncode == 143 and out == b"" and err == b"", f"SIGTERM before step 1: {process.returncode} {err!r}")
    check(os.path.getsize(path) == 0, "SIGTERM before step 1: the validation went on, or a step was taken")
    resumed = subprocess.run([*command, "--resume"], capture_output=True, text=True)
    check(resumed.returncode == 0 and json.loads(resumed.stdout.splitlines()[-1])["steps"] == 2,
          f"resuming what was stopped before step 1: {resumed.returncode} {resumed.stderr}")

    command = [BINARY, "finetune", "--model", model, "--data", data, "--out", os.path.join(work, "term"), "--method", "perft-r",
               *COMMON, "--max-steps", "400"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    path = os.path.join(work, "term", "metrics.jsonl")
    for _ in range(20000):
        if os.path.exists(path) and sum(1 for _ in open(path)) >= 3 or process.poll() is not None:
            break
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    check(process.returncode == 143 and out == b"", f"SIGTERM while training: {process.returncode} {out[:80]!r}")
    check(any(name.startswith("checkpoint-") for name in os.listdir(os.path.join(work, "term"))), "SIGTERM saved no state")
    # A reader that goes away: one error line and nothing left, not a death by SIGPIPE.
    command = [BINARY, "finetune", "--model", model, "--data", data, "--out", os.path.join(work, "piped"), "--method", "perft-r",
               *[word for word in COMMON if word != "--json"], "--max-steps", "2"]
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    check(process.returncode == 1 and process.stderr.startswith("perft: error: stdout: cannot write the tables"),
          f"a closed stdout: {process.returncode} {process.stderr!r}")
    check(not os.path.exists(os.path.join(work, "piped")), "a closed stdout: a folder is left")


def watched():
    """report.html stands alone and grows with the run; TensorBoard's events are one per line of metrics.jsonl, resumed or not."""
    def events(out):
        with open(os.path.join(work, out, "events.out.tfevents.perft"), "rb") as file:
            content = file.read()
        count, at = 0, 0
        while at < len(content):
            at += 16 + int.from_bytes(content[at:at + 8], "little")
            count += 1
        check(at == len(content), f"{out}: the event file ends inside a record")
        return count

    finetune("watched", "--max-steps", "6")
    with open(os.path.join(work, "watched", "report.html")) as file:
        page = file.read()
    check(page.startswith("<!doctype html>") and page.rstrip().endswith("</html>"), "report.html is no whole page")
    check("http" not in page.replace("http-equiv", "") and "src=" not in page, "report.html refers to other files")
    check(page.count("<svg") == 6 + 8 and page.count("<polyline") == 8, f"report.html: {page.count('<svg')} charts, "
          f"{page.count('<polyline')} lines")
    check("NaN" not in page and "nan" not in page.replace("finance", ""), "report.html holds NaN")
    check(f"<b>{6}</b>" in page and "perft-r" in page and "mlp.perft.router" in page, "report.html lacks step, method or table")
    check(events("watched") == 1 + len(metrics("watched")), "an event per line of metrics.jsonl, and the version")
    finetune("watched", "--max-steps", "9", "--resume")
    check(events("watched") == 1 + len(metrics("watched")), "after resuming: an event per line, and the version")
    with open(os.path.join(work, "watched", "report.html")) as file:
        check("<b>9</b>" in file.read(), "after resuming, report.html is the old one")


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
        for part in (methods, repeats, resumes, shapes_of_resuming, losses_of_data_and_folders, tables_come_first,
                     schedule_clip_and_decay, bf16_runs, routers_over_time, signals_end_it, watched, saved_adapter_is_the_best,
                     refuses_numbers_that_are_not_finite):
            part()
    finally:
        shutil.rmtree(work)
    print("failures:", len(failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

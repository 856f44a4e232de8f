#!/usr/bin/env python3
"""Two runs in one folder, a run resumed with other data or another base, and what a run says when it ends badly or again.

Environment: PERFT_BINARY, PERFT_FAULT_SHIM.
"""
import fcntl
import json
import os
import pty
import resource
import shutil
import signal
import subprocess
import sys
import time

import tensor_files
from crash_runs import ADAPTER, Runs, listing, read, write_model


def refused(runs, done, text, *parts):
    runs.check(done.returncode == 1 and done.stdout == "", f"{text}: exit code {done.returncode} {done.stdout!r}")
    runs.check(done.stderr.count("\n") == 1 and done.stderr.startswith("perft: error: ") and all(part in done.stderr for part in parts),
               f"{text}: {done.stderr!r} is not one line with {parts}")


def two_runs(runs):
    """The second is refused, new or resumed, whatever the first is doing, and changes nothing; a killed run locks nobody out."""
    folder = runs.next_folder()
    steps = ("--max-steps", "3000", "--save-every", "1000")
    first = subprocess.Popen(runs.command(folder, *steps), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    path = os.path.join(folder, "metrics.jsonl")
    while first.poll() is None and not (os.path.exists(path) and os.path.getsize(path) > 0):
        time.sleep(0.001)
    lasting = {".lock", "run.toml", "metrics.jsonl"}
    runs.check(lasting <= set(listing(folder)), f"a run at work has no lock: {listing(folder)}")
    refused(runs, runs.run(folder, options=steps), "resuming a run at work", folder + ": another run is at work in it (process "
            + str(first.pid), "give another --out")
    new = [word for word in runs.command(folder) if word != "--resume"]
    refused(runs, subprocess.run(new, capture_output=True, text=True), "a new run beside one at work", "another run is at work")
    runs.check(first.poll() is None and lasting <= set(listing(folder)), "a refused run changed what the first had written")
    first.send_signal(signal.SIGKILL)
    first.wait()
    runs.check(".lock" in listing(folder), "the lock is not the file .lock")
    for name in os.listdir(folder):
        if name != ".lock":
            path = os.path.join(folder, name)
            (shutil.rmtree if os.path.isdir(path) else os.remove)(path)
    runs.check_finished(folder, "a folder with the lock of a killed run")
    # Before a run has written anything, the lock alone keeps others out, and nothing of theirs stays.
    folder = runs.next_folder()
    os.mkdir(folder)
    with open(os.path.join(folder, ".lock"), "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        refused(runs, runs.run(folder), "a folder whose lock is held", "another run is at work in it (a process that is just starting)")
        runs.check(listing(folder) == [".lock"], f"a refused run leaves {listing(folder)}")
    runs.check_finished(folder, "a folder whose lock was let go")
    # One that opened the lock's file before its holder removed it has the lock of a file without a name: it must look again.
    stale = runs.next_folder()
    os.mkdir(stale)
    open(os.path.join(stale, ".lock"), "w").close()
    opened = [call.number for call in runs.logged("opened", stale)[1] if call.name == "open" and call.path == ".lock"][-1]
    late = subprocess.Popen(runs.command(stale), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, **runs.fault(stale, opened, "stop-after")})
    runs.check(os.WIFSTOPPED(os.waitpid(late.pid, os.WUNTRACED)[1]), "the run does not stop at its lock")
    os.remove(os.path.join(stale, ".lock"))
    with open(os.path.join(stale, ".lock"), "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        late.send_signal(signal.SIGCONT)
        out, err = late.communicate(timeout=60)
        runs.check(late.returncode == 1 and "another run is at work" in err, f"the lock of a removed file: {late.returncode} {err!r}")
    # Many at once: one of them is the run, and none disturbs it.
    folder = runs.next_folder()
    many = [subprocess.Popen(new[:3] + [folder] + new[4:], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(6)]
    ends = [(process.communicate(), process.returncode) for process in many]
    runs.check(sorted(code for _, code in ends) == [0, 1, 1, 1, 1, 1], f"six runs at once end with {ends}")
    runs.check_finished(folder, "six runs at once")


def another_origin(runs):
    """Rows, template, tokenizer, config.json and weights must be what they were; how files are written does not matter."""
    folder = os.path.join(runs.work, "origin")
    saves = [call for call in runs.calls if call.name == "mkdir" and call.path == ".checkpoint-6.tmp"]
    runs.run(folder, runs.fault(folder, saves[0].number, "kill-before"))
    os.remove(os.path.join(folder, ".lock"))
    rows, config, weights = (os.path.join(runs.work, *path) for path in (["rows.json"], ["model", "config.json"], ["model", "model.safetensors"]))

    def with_file(path, content, text, *parts):
        old = read(path)
        with open(path, "wb") as out:
            out.write(content)
        before = [read(folder, name) for name in listing(folder) if os.path.isfile(os.path.join(folder, name))]
        done = runs.run(folder)
        if parts:
            refused(runs, done, text, *parts, "checkpoint-4 was written; put back what it was, or train anew with another --out")
            runs.check(before == [read(folder, name) for name in listing(folder) if os.path.isfile(os.path.join(folder, name))],
                       f"{text}: files were changed")
        else:
            runs.check(done.returncode == 0, f"{text}: {done.stderr}")
        with open(path, "wb") as out:
            out.write(old)

    content = json.loads(read(rows))
    with_file(rows, json.dumps(content[:-1]).encode(), "a row less",
              rows + ": has 23 rows to train on and 6 held back, and had 24 and 6 when ")
    changed = [dict(row) for row in content]
    changed[0]["output"] += "0"
    with_file(rows, json.dumps(changed).encode(), "another row", rows + ": the rows ", "are not those when ")
    with_file(rows, json.dumps(content[::-1]).encode(), "other order", rows + ": the rows to train on", "are not those when ")
    values = json.loads(read(config))
    with_file(config, json.dumps({**values, "rope_theta": 5000.0}).encode(), "another config.json",
              runs.model + "/config.json: its values are not those when ")
    _, tensors = tensor_files.read(weights)
    last = tensors["model.layers.0.mlp.experts.3.up_proj.weight"]
    tensors["model.layers.0.mlp.experts.3.up_proj.weight"] = tensor_files.Tensor(
        last.dtype, last.shape, last.raw[:-1] + bytes([last.raw[-1] ^ 1]))
    other = os.path.join(runs.work, "other.safetensors")
    tensor_files.write(other, tensors)
    with_file(weights, read(other), "another bit in the base", runs.model + ": the base's weights are not those when ")
    # The same rows as JSON Lines with other spaces, and the same values in another spelling, are the same.
    with_file(config, json.dumps({**values, "transformers_version": "9"}, indent=3).encode(), "the same config.json")
    runs.check_finished(folder, "the same data and base")


def half_a_checkpoint(runs):
    """A folder that is called a checkpoint and holds half of one is not resumed from, and gives way to the whole one."""
    folder = runs.next_folder()
    saves = [call for call in runs.calls if call.name == "mkdir" and call.path == ".checkpoint-6.tmp"]
    runs.run(folder, runs.fault(folder, saves[0].number, "kill-before"))
    os.mkdir(os.path.join(folder, "checkpoint-6"))
    shutil.copy(os.path.join(runs.reference, "checkpoint-7", runs.weights), os.path.join(folder, "checkpoint-6", runs.weights))
    open(os.path.join(folder, "checkpoint-6", "training_state.safetensors"), "w").close()
    runs.check_finished(folder, "half of a checkpoint")


def on_a_terminal(command, environment=None):
    """What a command prints to stderr if that is a terminal."""
    main, terminal = pty.openpty()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, env={**os.environ, **(environment or {})})
    os.close(terminal)
    text = b""
    while True:
        try:
            piece = os.read(main, 4096)
        except OSError:
            break
        if not piece:
            break
        text += piece
    process.communicate()
    os.close(main)
    return text.decode()


def what_is_said(runs):
    folder = os.path.join(runs.work, "said")
    shutil.copytree(runs.reference, folder)
    text = on_a_terminal(runs.command(folder, "--max-steps", "8"))
    runs.check(f"perft: note: resuming from {folder}/checkpoint-7" in text, f"resuming does not name its checkpoint: {text!r}")
    unlocked = runs.next_folder()
    text = on_a_terminal(runs.command(unlocked), runs.fault(unlocked, 0, "no-locks"))
    runs.check(f"note: {unlocked}/.lock: this file system has no locks (No locks available)" in text, f"no locks, and says {text!r}")
    runs.check_finished(unlocked, "a file system without locks")
    # A finished run: its own speed, from metrics.jsonl, and no file touched.
    before = {name: os.stat(os.path.join(folder, name)).st_mtime_ns for name in listing(folder)}
    command = [word for word in runs.command(folder, "--max-steps", "8") if word != "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [json.loads(line) for line in read(folder, "metrics.jsonl").splitlines()]
    later = [line for line in lines if "seconds" in line and line["step"] > 1]
    speed = sum(line["tokens"] for line in later) / sum(line["seconds"] for line in later)
    said = done.stdout.splitlines()[-1]
    runs.check(f", {speed:g} tokens/s; saved to " in said, f"a finished run, resumed, says {said!r}, its speed is {speed:g}")
    runs.check(before == {name: os.stat(os.path.join(folder, name)).st_mtime_ns for name in listing(folder)}, "it touched files")
    # One step has no speed.
    one = runs.next_folder()
    command = [word for word in runs.command(one, "--max-steps", "1") if word != "--json"]
    said = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()[-1]
    runs.check("tokens/s" not in said and "; saved to" in said, f"a run of one step says {said!r}")


def not_finite(runs):
    """A token whose embedding is not finite: layer and rows are named, the checkpoint before it stays, and the run can go on
    from it once the data is right."""
    folder, model = os.path.join(runs.work, "broken"), os.path.join(runs.work, "broken-model")
    write_model(model)
    metadata, tensors = tensor_files.read(os.path.join(model, "model.safetensors"))
    raw = bytearray(tensors["model.embed_tokens.weight"].raw)
    raw[2 * 16 * ord("@"):2 * 16 * ord("@") + 2] = b"\xc0\x7f"  # BF16 NaN in the row of "@"
    tensors["model.embed_tokens.weight"].raw = bytes(raw)
    tensor_files.write(os.path.join(model, "model.safetensors"), tensors)
    for bad, seed in ((9, "42"), (17, "42")):
        rows = os.path.join(runs.work, "bad.json")
        content = json.loads(read(runs.data))
        content[bad]["instruction"] = "@"
        with open(rows, "w") as out:
            json.dump(content, out)
        shutil.rmtree(folder, ignore_errors=True)
        done = runs.run(folder, options=("--model", model, "--data", rows, "--val-size", "0", "--save-every", "1", "--max-steps", "16"))
        refused(runs, done, "an embedding that is not finite", f"{folder}: step ", "not finite (lm nan, ", "; such numbers first appear in the embedding",
                f", for row {bad + 1} of --data; ")
        step = int(done.stderr.split(": step ")[1].split(":")[0])
        kept = [name for name in os.listdir(folder) if name.startswith("checkpoint-")] if os.path.isdir(folder) else []
        runs.check(kept == ([f"checkpoint-{step - 1}"] if step > 1 else []), f"not finite in step {step}: holds {kept}")
        runs.check(("the last checkpoint is intact" in done.stderr) == (step > 1), f"step {step}: {done.stderr}")
    # The same row held back: the validation before step 1 finds it.
    held = min(set(range(30)) - set(trained_rows(runs, model, folder)))
    content = json.loads(read(runs.data))
    content[held]["instruction"] = "@"
    with open(rows, "w") as out:
        json.dump(content, out)
    done = runs.run(runs.next_folder(), options=("--model", model, "--data", rows))
    refused(runs, done, "a row held back", ": step 0: the validation loss is not finite; such numbers first appear in the embedding, for row "
            f"{held + 1} of --data; ")
    done = runs.run(runs.next_folder(), options=("--val-size", "0", "--warmup", "0", "--lr", "1e38", "--max-steps", "3"))
    refused(runs, done, "weights that overflow", "not finite", "--lr")


def trained_rows(runs, model, folder):
    """The rows (from 0) that the split leaves to train on: those with which alone a broken row is found in training."""
    rows, found = os.path.join(runs.work, "one.json"), []
    for bad in range(30):
        content = json.loads(read(runs.data))
        content[bad]["instruction"] = "@"
        with open(rows, "w") as out:
            json.dump(content, out)
        shutil.rmtree(folder, ignore_errors=True)
        done = runs.run(folder, options=("--model", model, "--data", rows, "--max-steps", "8"))
        if "the validation loss" not in done.stderr:
            found.append(bad)
    runs.check(len(found) == 24, f"{len(found)} rows are trained, expected 24")
    return found


def flat_curves(runs):
    """Losses that differ in the last digits only are drawn, in little memory."""
    command = runs.command(runs.next_folder(), "--prompt", "alpaca", "--method", "full", "--val-size", "4")
    for name in ("--experts", "--top-k", "--rank", "--dropout"):
        at = command.index(name)
        del command[at:at + 2]
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
    runs.check(done.returncode == 0, f"every row is the same: {done.stderr}")


def main():
    runs = Runs(ADAPTER)
    try:
        for part in (two_runs, another_origin, half_a_checkpoint, what_is_said, not_finite, flat_curves):
            part(runs)
    finally:
        runs.close()
    print("failures:", len(runs.failures))
    return 1 if runs.failures else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""A run killed anywhere and resumed ends in the bytes of one that was left alone; SIGINT and SIGTERM save and say so.

Environment: PERFT_BINARY, PERFT_FAULT_SHIM; PERFT_CRASHES=N kills at every call, and N times at random moments.
"""
import concurrent.futures
import os
import random
import shutil
import signal
import subprocess
import sys
import time

from crash_runs import ADAPTER, FULL, STEPS, Runs, spread

CRASHES = int(os.environ.get("PERFT_CRASHES", "0"))
SEED = 11
KILLS = ("kill-before", "kill-after", "kill-half")


def all_of(jobs):
    """Runs the functions side by side, and raises what they raise."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for job in [pool.submit(*job) for job in jobs]:
            job.result()
    return len(jobs)


def at_call(runs, folder, call, calls, mode, state=None):
    """Dies (or is signalled) at one of the calls, and is resumed. `state`: what a run that is resumed finds."""
    text = f"{mode} at {call.name} {call.path}" + (" of a resumed run" if state else "")
    if state is not None:
        shutil.copytree(state, folder)
    done = runs.run(folder, runs.fault(folder, call.number, mode))
    if mode in KILLS:
        runs.check(done.returncode == -signal.SIGKILL, f"{text}: exit code {done.returncode}: {done.stderr}")
    else:
        check_signalled(runs, folder, done.returncode, done.stdout, done.stderr, getattr(signal, mode), text)
    runs.check_kept(folder, call, calls, text, state)
    runs.check_whole_files(folder)
    runs.check_finished(folder, text)


def check_signalled(runs, folder, code, out, err, number, text):
    before_handlers = code == -number and not os.path.exists(folder)
    runs.check(code in (128 + number, 0) or before_handlers, f"{text}: exit code {code}")
    runs.check(err == "" and (code == 0 or out == ""), f"{text}: prints {out!r} {err!r}")
    if code == 128 + number and os.path.exists(os.path.join(folder, "metrics.jsonl")):
        steps = [line for line in open(os.path.join(folder, "metrics.jsonl")) if "train_loss" in line]
        saved = max(runs.checkpoints(folder), default=0)
        runs.check(saved == len(steps), f"{text}: {len(steps)} steps taken, saved is step {saved}")


def at_random_time(runs, folder, number, delay):
    text = f"signal {number} after {delay:.3f} s"
    process = subprocess.Popen(runs.command(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(delay)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    if number == signal.SIGKILL:
        runs.check(process.returncode in (-number, 0), f"{text}: exit code {process.returncode}")
    else:
        check_signalled(runs, folder, process.returncode, out, err, number, text)
    runs.check_whole_files(folder)
    runs.check_finished(folder, text)


def main():
    rng = random.Random(SEED)
    failures, counts = [], []
    begun = time.time()
    for name, options in (("adapter", ADAPTER), ("full", FULL)):
        runs = Runs(options)
        try:
            adapter = name == "adapter"
            steps = sorted(runs.checkpoints(runs.reference))
            runs.check(len(steps) == 2 and steps[1] == STEPS, f"{name}: the best checkpoint is not another than the last: {steps}")
            modes = lambda call: [mode for mode in KILLS if mode != "kill-half" or call.name == "write"]
            if CRASHES:
                chosen = [(call, mode) for call in runs.calls for mode in modes(call) if adapter or call.name in ("rename", "fsync")]
            else:
                chosen = [(call, rng.choice(modes(call)[1:])) for call in spread(runs.calls, rng, 2 if adapter else 1)]
            kills = all_of([(at_call, runs, runs.next_folder(), call, runs.calls, mode) for call, mode in chosen])
            # Resuming writes, too: from a state with a save half done and metrics beyond the last checkpoint.
            state = runs.next_folder()
            saves = [call for call in runs.calls if call.name == "fsync" and call.place.startswith(f".checkpoint-N.tmp/{runs.weights}")]
            runs.run(state, runs.fault(state, saves[3].number, "kill-after"))
            calls = runs.logged("resumed", state)[1]
            resumed = calls if CRASHES else [call for call in spread(calls, rng) if adapter or call.name == "rename"]
            kills += all_of([(at_call, runs, runs.next_folder(), call, calls, rng.choice(modes(call)), state) for call in resumed])
            if adapter:  # the result in the folder is replaced, and is whole at every moment
                more = runs.extended(STEPS + 2)
                again = more.calls if CRASHES else spread(more.calls, rng)
                kills += all_of([(at_call, more, more.next_folder(), call, more.calls, rng.choice(modes(call)), runs.reference)
                                 for call in again])
            began = time.time()
            runs.run(runs.next_folder())
            seconds = time.time() - began
            moments = [(at_random_time, runs, runs.next_folder(), signal.SIGKILL, rng.uniform(0, 1.5 * seconds))
                       for _ in range((CRASHES or 12) if adapter else 4)]
            kills += all_of(moments)
            signals = [(at_call, runs, runs.next_folder(), call, runs.calls, rng.choice(("SIGINT", "SIGTERM")))
                       for call in spread(runs.calls, rng) if adapter or call.name == "rename"]
            signals += [(at_random_time, runs, runs.next_folder(), rng.choice((signal.SIGINT, signal.SIGTERM)),
                         rng.uniform(0, 1.2 * seconds)) for _ in range((CRASHES // 4 or 8) if adapter else 2)]
            counts.append(f"{name}: {kills} SIGKILLs, {all_of(signals)} SIGINTs and SIGTERMs")
        finally:
            failures += runs.failures
            runs.close()
    print("; ".join(counts), f"in {time.time() - begun:.0f} s; failures: {len(failures)}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""A disk that is full, fails or lies: one line that names a file, the last checkpoint as it was, and a run that goes on.

And from the order of calls alone: what is on disk when power fails. Environment: PERFT_BINARY, PERFT_FAULT_SHIM; PERFT_CRASHES=N
takes every call.
"""
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

from crash_runs import ADAPTER, FULL, Runs, listing, read, spread
from crash_test import all_of


def one_line(runs, done, text, *parts):
    runs.check(done.returncode == 1, f"{text}: exit code {done.returncode}")
    runs.check(done.stdout == "" and done.stderr.count("\n") == 1 and done.stderr.startswith("perft: error: "),
               f"{text}: not one error line: {done.stderr!r} {done.stdout!r}")
    runs.check(all(part in done.stderr for part in parts), f"{text}: {done.stderr!r} lacks one of {parts}")


def at_call(runs, folder, call, calls, mode, state=None):
    text = f"{mode} at {call.name} {call.path}" + (" of a resumed run" if state else "")
    if state is not None:
        shutil.copytree(state, folder)
    done = runs.run(folder, runs.fault(folder, call.number, mode))
    # What is lost without harm: a lock's text, the removal of what is removed again, the closing of what was synced.
    harmless = call.path.startswith(".lock") or call.name in ("unlink", "remove", "close")
    if harmless and done.returncode == 0:
        runs.check(done.stderr == "", f"{text}: {done.stderr!r}")
    else:
        name = os.path.basename(call.path.split(" ")[0]).split(".tmp")[0] if call.path != "." else ""
        later = harmless or call.place in (".", ".checkpoint-N.tmp", "checkpoint-N .checkpoint-N.old")
        one_line(runs, done, text, folder, "" if later else name.lstrip("."), "No space left" if mode == "ENOSPC" else "Input/output error")
    runs.check_kept(folder, call, calls, text, state)
    runs.check_whole_files(folder)
    if mode == "ENOSPC" and not state and done.returncode != 0:  # files can be removed there; a given-up checkpoint may wait for that
        left = [name for name in listing(folder) if ".tmp" in name] if os.path.isdir(folder) else []
        runs.check(not left, f"{text}: leaves {left}")
        runs.check(not os.path.isdir(folder) or os.path.exists(os.path.join(folder, "run.toml")), f"{text}: leaves an empty folder")
    runs.check_finished(folder, text)


def flipped(runs, folder, call):
    """A bit that changes on its way to the disk is found before the checkpoint is put in place."""
    text = f"flip at {call.name} {call.path}"
    done = runs.run(folder, runs.fault(folder, call.number, "flip"))
    one_line(runs, done, text, "reading it back, byte ", os.path.basename(call.path).split(".tmp")[0])
    runs.check_finished(folder, text)


def really_full(runs, names):
    """A file system of a few pages: the same without the shim. Needs the right to mount."""
    mount = tempfile.mkdtemp(prefix="perft-full-")
    try:
        sizes = range(16, 200, 24)  # KiB: from the first file to just short of the whole run
        for size in sizes:
            done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", mount], capture_output=True)
            if done.returncode != 0:
                print("no full disk was tried: mounting is not allowed here")
                return
            try:
                folder = os.path.join(mount, "run")
                done = runs.run(folder)
                if done.returncode != 0:
                    one_line(runs, done, f"a disk of {size} KiB", folder, "No space left")
                    names.append(done.stderr.split(folder)[1].split(":")[0])
                runs.check_whole_files(folder)
                subprocess.run(["mount", "-o", "remount,size=4m", mount], check=True)
                runs.check_finished(folder, f"a disk of {size} KiB made larger")
            finally:
                subprocess.run(["umount", mount], check=True)
    finally:
        os.rmdir(mount)


def orders(runs):
    """After a power failure only what was synced is there: each rename must find its bytes on disk, and nothing older may go
    before the newer is durable."""
    dirty, renamed, parents = set(), {}, set()
    for call in runs.calls:
        path, _, target = call.path.partition(" ")
        if call.name == "write":
            dirty.add(path)
        elif call.name == "fsync":
            dirty.discard(path)
            for name in [name for name in renamed if (os.path.dirname(name) or ".") == path]:
                del renamed[name]
            parents.add(path)
        elif call.name == "rename":
            runs.check(path not in dirty, f"{path} is put in place before it is on disk")
            if target.startswith("checkpoint-"):
                inside = [name for name in renamed if name.startswith(path + "/")]
                runs.check(not inside, f"{target} is put in place before its folder holds {inside}")
                watched = [name for name in dirty if name in ("metrics.jsonl", "events.out.tfevents.perft")]
                runs.check(not watched, f"{target} is put in place before {watched} are on disk")
            if target.endswith(".old"):
                runs.check(not [name for name in renamed if name.startswith("checkpoint-")],
                           f"{path} is given up before the new checkpoint is on disk")
            renamed[target] = True
        elif call.name in ("unlink", "remove") and ".old" in path:
            runs.check(not [name for name in renamed if name.endswith(".old")], f"{path} is removed before its new name is on disk")
    runs.check(not renamed, f"not on disk when the run ends: {list(renamed)}")
    lost = [name for name in dirty if name != ".lock"]
    runs.check(not lost, f"written and not on disk when the run ends: {lost}")
    runs.check(any(call.name == "rename" and call.path.endswith(".old") for call in runs.calls), "no checkpoint was removed")


def main():
    rng = random.Random(7)
    failures, counts, names = [], [], []
    begun = time.time()
    for name, options in (("adapter", ADAPTER), ("full", FULL)):
        runs = Runs(options)
        try:
            orders(runs)
            if os.environ.get("PERFT_CRASHES"):
                calls = runs.calls
            else:
                calls = [call for call in spread(runs.calls, rng, 2) if name == "adapter" or call.name == "write"]
            modes = lambda call: ["EIO"] if call.name in ("unlink", "remove", "close", "ftruncate") else ["EIO", "ENOSPC"]
            jobs = [(at_call, runs, runs.next_folder(), call, runs.calls, mode) for call in calls for mode in modes(call)]
            if name == "adapter":  # a run that is resumed, with a save half done
                state = runs.next_folder()
                saves = [call for call in runs.calls if call.name == "fsync" and call.place.startswith(f".checkpoint-N.tmp/{runs.weights}")]
                runs.run(state, runs.fault(state, saves[3].number, "kill-after"))
                resumed = runs.logged("resumed", state)[1]
                jobs += [(at_call, runs, runs.next_folder(), call, resumed, rng.choice(modes(call)), state) for call in spread(resumed, rng)]
            lies = [call for call in spread(runs.calls, rng, 2) if call.name == "write" and ".safetensors" in call.path]
            jobs += [(flipped, runs, runs.next_folder(), call) for call in lies]
            counts.append(f"{name}: {all_of(jobs)} faults")
            if name == "adapter":
                really_full(runs, names)
        finally:
            failures += runs.failures
            runs.close()
    print("; ".join(counts), f"; full at {sorted(set(names))}; {time.time() - begun:.0f} s; failures: {len(failures)}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

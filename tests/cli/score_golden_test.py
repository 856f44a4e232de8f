#!/usr/bin/env python3
"""Holds `perft score` against every golden file of PyTorch and transformers, in f32 and f64.

The program is PERFT_BINARY, the goldens are in PERFT_FIXTURES/golden (its README says what they hold); both are set by
ctest. Without a binary the test is skipped (exit 77). Tolerances: logits 1e-4, losses 1e-5, gradients 1e-4 of their
tensor's largest entry or 1e-7, parameters after each of three AdamW steps 5e-5 everywhere and 2e-6 for 99.9 % of entries.
Standard library only.
"""

import array
import glob
import json
import math
import os
import shutil
import struct
import subprocess
import sys
import tempfile

DTYPES = {"F32": ("f", 4), "F64": ("d", 8), "I64": ("q", 8)}
TIMEOUT_SECONDS = 120
FAILURES = []


class Tensor:
    def __init__(self, dtype, shape, raw):
        self.dtype, self.shape, self.raw = dtype, shape, raw

    @property
    def values(self):
        return array.array(DTYPES[self.dtype][0], self.raw)


def read(path):
    """(metadata, {name: Tensor}) of a safetensors file; everything in its header is checked."""
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = f.read()
    metadata = header.pop("__metadata__", {})
    tensors, end = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, stop = entry["data_offsets"]
        assert begin == end and stop - begin == math.prod(entry["shape"]) * DTYPES[entry["dtype"]][1], (path, name)
        tensors[name] = Tensor(entry["dtype"], entry["shape"], data[begin:stop])
        end = stop
    assert end == len(data), path
    return metadata, tensors


def write(path, tensors):
    header, at = {}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [at, at + len(tensor.raw)]}
        at += len(tensor.raw)
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(tensor.raw for tensor in tensors.values()))


def expect(condition, *message):
    if not condition:
        FAILURES.append(" ".join(str(piece) for piece in message))
    return condition


def largest_difference(ours, golden):
    """max |ours - golden|, infinite if anything is not finite."""
    a, b = ours.values, golden.values
    assert len(a) == len(b)
    worst = 0.0
    for x, y in zip(a, b):
        difference = abs(x - y)
        if not difference <= worst:  # larger, or not a number
            worst = difference if math.isfinite(difference) else math.inf
    return worst


def compare(label, ours, name, golden, tolerance):
    if expect(name in ours, label, "no tensor", name):
        found = ours[name]
        if expect(found.values and len(found.values) == len(golden.values), label, name, "has shape", found.shape):
            worst = largest_difference(found, golden)
            expect(worst <= tolerance, label, name, "differs by", worst, "allowed", tolerance)


def adapter_config(metadata, config, tensors, params):
    """adapter_config.json for a golden file; older ones say in their name what newer ones have in their metadata."""
    variant = metadata["variant"]
    numbers = [int(piece) for piece in variant.split("-") if piece.isdigit()]
    slots = [name[: -len(".lora_A.weight")] for name in params if name.endswith(".lora_A.weight") and ".perft." not in name]
    experts = {name.split(".perft.experts.")[1].split(".")[0] for name in params if ".perft.experts." in name}
    ranks = {tensors["param." + name].shape[0] for name in params if name.endswith(("lora_A.weight", "w1.weight"))}
    assert len(ranks) == 1, variant
    rank = ranks.pop()
    return {
        "format": "perft-adapter",
        "version": 1,
        "base_model_type": config["model_type"],
        "method": "lora" if slots else "-".join(variant.split("-")[:2]),
        "delta": "parallel" if "parallel" in variant else "lora",
        "rank": rank,
        "alpha": float(metadata.get("alpha", 2 * rank)),
        "experts": len(experts),
        "top_k": numbers[1] if variant.startswith("perft-r") else 0,
        "dropout": 0.0,
        "router_weights": "authors-olmoe" if "released" in variant else "own",
        "targets": sorted({slot.rsplit(".", 1)[1] for slot in slots}),
    }


def score(binary, arguments, label):
    """Runs the program; returns its output file's tensors and its --json object, or None."""
    output = arguments[arguments.index("--output") + 1]
    command = binary + arguments + ["--json", "--threads", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    if not expect(done.returncode == 0, label, "exit", done.returncode, done.stderr.strip()):
        return None
    expect(done.stderr == "", label, "stderr:", done.stderr)
    lines = done.stdout.splitlines()
    if not expect(len(lines) == 1, label, "stdout:", done.stdout):
        return None
    metadata, tensors = read(output)
    expect(all(tensor.dtype == "F32" for tensor in tensors.values()), label, "the output is not all F32")
    try:
        summary = json.loads(lines[0])
    except ValueError:
        summary = {}
    if not expect(isinstance(summary, dict) and summary, label, "stdout is not a JSON object:", lines[0]):
        return None
    if "lm_loss" in tensors:
        expect(abs(summary["lm_loss"] - tensors["lm_loss"].values[0]) < 1e-6, label, "--json lm_loss", summary)
    return tensors


def losses(label, ours, ours_prefix, tensors, prefix):
    for name, golden in (("lm_loss", "lm"), ("aux_loss", "aux_base"), ("adapter_aux_loss", "aux_peft"), ("loss", "total")):
        if prefix + golden in tensors:
            compare(label, ours, ours_prefix + name, tensors[prefix + golden], 1e-5)


def parameters(label, ours, tensors, step):
    entries, above, worst = 0, 0, 0.0
    prefix = "after%d.param." % step
    for name in tensors:
        if not name.startswith(prefix) or not expect(name in ours, label, "no tensor", name):
            continue
        for x, y in zip(ours[name].values, tensors[name].values):
            difference = abs(x - y)
            entries += 1
            above += not difference <= 2e-6
            worst = max(worst, difference) if math.isfinite(difference) else math.inf
    expect(worst <= 5e-5, label, "parameters after step", step, "differ by", worst)
    expect(above <= 0.001 * entries, label, above, "of", entries, "parameters after step", step, "differ by over 2e-6")
    return entries


def check_file(binary, path, folder, dtype):
    metadata, tensors = read(path)
    model = os.path.join(os.path.dirname(path), "checkpoint")
    with open(os.path.join(model, "config.json")) as f:
        config = json.load(f)
    params = [name[len("param."):] for name in tensors if name.startswith("param.")]
    trains = bool(params) or metadata["variant"] == "full"
    base = ["--model", model, "--output", os.path.join(folder, "out.safetensors"), "--dtype", dtype]
    if params:
        adapter = os.path.join(folder, "adapter")
        os.makedirs(adapter)
        write(os.path.join(adapter, "adapter_model.safetensors"), {name: tensors["param." + name] for name in params})
        with open(os.path.join(adapter, "adapter_config.json"), "w") as f:
            json.dump(adapter_config(metadata, config, tensors, params), f)
        base += ["--adapter", adapter]
    batch = os.path.join(folder, "batch.safetensors")
    compared = 0
    for prefix in ("", "right.", "nopad."):
        if prefix + "logits" not in tensors:
            continue
        label = "%s %s%s:" % (os.path.relpath(path), prefix, dtype)
        write(batch, {name: tensors[prefix + name] for name in ("input_ids", "attention_mask", "labels")})
        steps = 3 if trains and not prefix and "step1.grad_norm" in tensors else 0
        ours = score(
            binary,
            base + ["--input", batch] + (["--grads"] if trains else []) + (["--steps", "3", "--lr", "1e-3"] if steps else []),
            label,
        )
        if ours is None:
            continue
        expect(ours["logits"].shape == tensors[prefix + "logits"].shape, label, "logits", ours["logits"].shape)
        compare(label, ours, "logits", tensors[prefix + "logits"], 1e-4)
        losses(label, ours, "", tensors, prefix)
        golden_gradients = {name[len(prefix):] for name in tensors if name.startswith(prefix + "grad.")}
        if golden_gradients:
            found = {name for name in ours if name.startswith("grad.")}
            expect(found == golden_gradients, label, "gradients of others:", sorted(found ^ golden_gradients)[:4])
        for name in golden_gradients:
            golden = tensors[prefix + name]
            compare(label, ours, name, golden, max(1e-7, 1e-4 * max(abs(x) for x in golden.values)))
            compared += 1
        for step in range(1, steps + 1):
            norm = tensors["step%d.grad_norm" % step]
            compare(label, ours, "step%d.grad_norm" % step, norm, 1e-5 * max(1.0, norm.values[0]))
            losses(label, ours, "after%d." % step, tensors, "after%d." % step)
            parameters(label, ours, tensors, step)
        if prefix + "lm_real_rows" in tensors:
            ignoring = score(binary, base + ["--input", batch, "--pad-rows", "ignore"], label + " --pad-rows ignore")
            if ignoring is not None:
                compare(label + " --pad-rows ignore", ignoring, "lm_loss", tensors[prefix + "lm_real_rows"], 1e-5)
                expect(not any(name.startswith("grad.") for name in ignoring), label, "gradients nobody asked for")
    expect(compared > 0 or not trains, os.path.relpath(path), "no gradient was compared")


def check_options(binary, root, folder):
    """--aux-coef, and a batch without labels."""
    path = os.path.join(root, "olmoe", "base.safetensors")
    _, tensors = read(path)
    batch = os.path.join(folder, "batch.safetensors")
    base = ["--model", os.path.join(root, "olmoe", "checkpoint"), "--output", os.path.join(folder, "out.safetensors")]
    base += ["--dtype", "f32", "--input", batch]
    write(batch, {name: tensors[name] for name in ("input_ids", "attention_mask", "labels")})
    off = score(binary, base + ["--aux-coef", "0"], "--aux-coef 0:")
    if off is not None:
        compare("--aux-coef 0:", off, "loss", tensors["lm"], 1e-5)
        compare("--aux-coef 0:", off, "aux_loss", tensors["aux_base"], 1e-5)
    write(batch, {name: tensors[name] for name in ("input_ids", "attention_mask")})
    plain = score(binary, base, "no labels:")
    if plain is not None:
        expect(set(plain) == {"logits"}, "no labels: the output has", sorted(plain))
        compare("no labels:", plain, "logits", tensors["logits"], 1e-4)


def main():
    binary = os.environ.get("PERFT_BINARY", "")
    fixtures = os.environ.get("PERFT_FIXTURES") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures")
    if not os.access(binary, os.X_OK):
        print("score_golden_test.py: PERFT_BINARY is not an executable:", binary or "(unset)")
        return 77
    root = os.path.join(fixtures, "golden")
    files = [path for path in sorted(glob.glob(os.path.join(root, "*", "*.safetensors")))]
    expect(len(files) >= 22, "only", len(files), "golden files in", root)
    runs = 0
    for path in files:
        for dtype in ("f32", "f64"):
            folder = tempfile.mkdtemp(prefix="perft-score-")
            try:
                check_file([binary, "score"], path, folder, dtype)
            finally:
                shutil.rmtree(folder)
            runs += 1
    with tempfile.TemporaryDirectory(prefix="perft-score-") as folder:
        check_options([binary, "score"], root, folder)
    for failure in FAILURES[:40]:
        print(failure)
    print("%d golden files and dtypes, %d failures" % (runs, len(FAILURES)))
    return 1 if FAILURES else 0


if __name__ == "__main__":
    sys.exit(main())

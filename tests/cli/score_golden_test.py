#!/usr/bin/env python3
"""Holds `perft score` against every golden file of PyTorch and transformers, in f32 and f64.

The program is PERFT_BINARY, the goldens are in PERFT_FIXTURES/golden (its README says what they hold); both are set by
ctest. Without a binary the test is skipped (exit 77). All GOLDEN_FILES files, all their batches, with gradients and three AdamW
steps wherever something is trained, and the logits along the greedy continuations. Tolerances: logits 1e-4, losses 1e-5, gradients 1e-4 of their
tensor's largest entry or 1e-7, parameters after each of three AdamW steps 5e-5 everywhere and 2e-6 for 99.9 % of entries.
Standard library only.
"""

import array
import glob
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile

from tensor_files import Tensor, read, write

TIMEOUT_SECONDS = 120
GOLDEN_FILES = 44
FAILURES = []


def expect(condition, *message):
    if not condition:
        FAILURES.append(" ".join(str(piece) for piece in message))
    return condition


def largest_difference(ours, golden):
    """max |ours - golden|, infinite if anything is not finite."""
    a, b = ours.values, golden.values
    assert len(a) == len(b)
    worst = max((abs(x - y) for x, y in zip(a, b)), default=0.0)
    return worst if all(map(math.isfinite, a)) else math.inf


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
    """Whether all of the file's parameters after a step were compared; False if it holds none of this step."""
    prefix = "after%d.param." % step
    names = {name for name in tensors if name.startswith(prefix)}
    found = {name for name in ours if name.startswith(prefix)}
    if not names or not expect(found == names, label, "parameters of others:", sorted(found ^ names)[:4]):
        return False
    entries, above, worst = 0, 0, 0.0
    for name in names:
        a, b = ours[name].values, tensors[name].values
        if not expect(len(a) == len(b), label, name, "has shape", ours[name].shape):
            return False
        for x, y in zip(a, b):
            difference = abs(x - y)
            if not difference <= 2e-6:
                above += 1
                worst = max(worst, difference) if math.isfinite(difference) else math.inf
        entries += len(a)
    expect(worst <= 5e-5, label, "parameters after step", step, "differ by", worst)
    expect(above <= 0.001 * entries, label, above, "of", entries, "parameters after step", step, "differ by over 2e-6")
    return entries > 0


def continuation(binary, base, batch, tensors, label):
    """The logits along the greedy continuation: prompt and generated tokens in one batch. Positions differ from those of
    generation by the padding, which RoPE does not see."""
    rows, prompt = tensors["prompt_ids"].shape
    steps = tensors["generated"].shape[1]
    prompts, masks, generated = (tensors[name].values for name in ("prompt_ids", "prompt_mask", "generated"))
    ids, mask = array.array("q"), array.array("q")
    for row in range(rows):
        ids += prompts[row * prompt : (row + 1) * prompt] + generated[row * steps : (row + 1) * steps - 1]
        mask += masks[row * prompt : (row + 1) * prompt] + array.array("q", [1] * (steps - 1))
    length = prompt + steps - 1
    write(batch, {n: Tensor("I64", [rows, length], v.tobytes()) for n, v in (("input_ids", ids), ("attention_mask", mask))})
    ours = score(binary, base + ["--input", batch], label)
    if ours is None or not expect(ours["logits"].shape[:2] == [rows, length], label, "logits", ours["logits"].shape):
        return
    vocab, flat, picked = ours["logits"].shape[2], ours["logits"].values, array.array("f")
    for row in range(rows):
        begin = (row * length + prompt - 1) * vocab
        picked += flat[begin : begin + steps * vocab]
    golden = tensors["generated_logits"]
    compare(label, {"generated_logits": Tensor("F32", golden.shape, picked.tobytes())}, "generated_logits", golden, 1e-4)


def check_file(binary, path, folder, dtype):
    metadata, tensors = read(path)
    model = os.path.join(os.path.dirname(path), "checkpoint")
    with open(os.path.join(model, "config.json")) as f:
        config = json.load(f)
    params = [name[len("param."):] for name in tensors if name.startswith("param.")]
    trains = metadata["variant"] != "base"
    base = ["--model", model, "--output", os.path.join(folder, "out.safetensors"), "--dtype", dtype]
    if params:
        adapter = os.path.join(folder, "adapter")
        os.makedirs(adapter)
        write(os.path.join(adapter, "adapter_model.safetensors"), {name: tensors["param." + name] for name in params})
        with open(os.path.join(adapter, "adapter_config.json"), "w") as f:
            json.dump(adapter_config(metadata, config, tensors, params), f)
        base += ["--adapter", adapter]
    batch = os.path.join(folder, "batch.safetensors")
    gradients = stepped = 0
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
            gradients += 1
        for step in range(1, steps + 1):
            norm = tensors["step%d.grad_norm" % step]
            compare(label, ours, "step%d.grad_norm" % step, norm, 1e-5 * max(1.0, norm.values[0]))
            losses(label, ours, "after%d." % step, tensors, "after%d." % step)
            stepped += parameters(label, ours, tensors, step)
            expect(step < 3 or stepped, label, "no parameter was compared after step 3")
        if prefix + "lm_real_rows" in tensors:
            ignoring = score(binary, base + ["--input", batch, "--pad-rows", "ignore"], label + " --pad-rows ignore")
            if ignoring is not None:
                compare(label + " --pad-rows ignore", ignoring, "lm_loss", tensors[prefix + "lm_real_rows"], 1e-5)
                expect(not any(name.startswith("grad.") for name in ignoring), label, "gradients nobody asked for")
    continuation(binary, base, batch, tensors, "%s continuation %s:" % (os.path.relpath(path), dtype))
    expect(gradients > 0 or not trains, os.path.relpath(path), "no gradient was compared")
    expect(stepped > 0 or "step1.grad_norm" not in tensors, os.path.relpath(path), "no step was compared")


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
    expect(len(files) == GOLDEN_FILES, len(files), "golden files in", root, "expected", GOLDEN_FILES)
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

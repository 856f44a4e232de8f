#!/usr/bin/env python3
"""perft score beside its numbers (score_golden_test.py): what it holds in memory, and its notes."""

import array
import json
import os
import pty
import subprocess
import tempfile

import bad_files
import tensor_files

PERFT = os.environ["PERFT_BINARY"]
MAKE_CHECKPOINT = os.path.join(os.path.dirname(PERFT), "make_checkpoint")
TOKENIZER = os.path.join(os.environ["PERFT_FIXTURES"], "tokenizers", "olmoe", "tokenizer.json")


def test_memory(top):
    """The logits [B, S, V] are the largest thing by far, and never there as a whole."""
    model, batch = os.path.join(top, "model"), os.path.join(top, "batch.safetensors")
    subprocess.run([MAKE_CHECKPOINT, "--out", model, "--tokenizer", TOKENIZER, "--hidden", "64", "--layers", "1", "--heads", "2",
                    "--experts", "4", "--top-k", "2", "--inner", "32"], check=True, stdout=subprocess.DEVNULL)
    rows, columns, vocabulary = 4, 256, 50304
    ids = array.array("q", [(7919 * i) % 50000 for i in range(rows * columns)])
    mask = array.array("q", [1] * len(ids))
    tensors = {"input_ids": ids, "attention_mask": mask, "labels": ids}
    tensor_files.write(batch, {n: tensor_files.Tensor("I64", [rows, columns], v.tobytes()) for n, v in tensors.items()})
    output = os.path.join(top, "out.safetensors")
    command = [PERFT, "score", "--model", model, "--input", batch, "--output", output, "--dtype", "f32"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    logits = 4 * rows * columns * vocabulary
    assert os.path.getsize(output) > logits
    assert 1024 * usage.ru_maxrss < logits, (1024 * usage.ru_maxrss, logits)


def test_notes(top):
    """On a terminal, what is odd about the input is said; nothing is if stderr is a pipe."""
    folder = os.path.join(top, "noted")
    for name, files in (("model", bad_files.model()), ("adapter", bad_files.adapter(colour="blue"))):
        os.makedirs(os.path.join(folder, name))
        for inner, content in files.items():
            with open(os.path.join(folder, name, inner), "wb") as out:
                out.write(content)
    with open(os.path.join(folder, "batch"), "wb") as out:
        out.write(bad_files.FILES["batch"]())
    command = [PERFT, "score", "--model", "model", "--adapter", "adapter", "--input", "batch", "--output", "out"]
    terminal, side = pty.openpty()
    done = subprocess.run([*command, "--json"], cwd=folder, stdout=subprocess.PIPE, stderr=side, check=True, timeout=60)
    os.close(side)
    text = os.read(terminal, 4096).decode()
    os.close(terminal)
    assert text == "perft: note: adapter/adapter_config.json: unknown key 'colour' is ignored\r\n", text
    assert json.loads(done.stdout)["rows"] == 2
    quiet = subprocess.run(command, cwd=folder, capture_output=True, check=True, timeout=60)
    assert quiet.stderr == b"" and quiet.stdout.startswith(b"lm_loss "), quiet


with tempfile.TemporaryDirectory(prefix="perft_score_") as folder_of_all:
    test_memory(folder_of_all)
    test_notes(folder_of_all)
print("score: no logits held, notes on a terminal alone")

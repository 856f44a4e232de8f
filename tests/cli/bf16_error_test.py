#!/usr/bin/env python3
"""The error of bf16 logits against f64 is at most 1.25 times that of transformers in bf16 on the same checkpoint.

Compared on every golden base batch, padded ones included: the rms over all logits of all real tokens. transformers' logits
are those of PERFT_FIXTURES/bf16_logits; f64 is `perft score --dtype f64`, itself held to the golden's logits here.

Routing: no token is left out, so a token whose expert bf16 rounding changes counts in full, on either side. In olmoe and mixtral
no choice of a real token is nearer to a tie than 0.030 between its last chosen and first unchosen router logit, rounding moves a
logit by 0.030 at most, and transformers chooses as f64 does everywhere. In olmoe-64x8 transformers chooses otherwise in 5 of 134
cases (gaps up to 0.010); they cost little, as the last of eight experts has a small weight: no token's rms error is over
0.011, whether its experts changed or not. Which experts `perft score` chose is not in its output; TOKEN_LIMIT would show a changed
expert of olmoe or mixtral, which moves a token's logits by 0.1 or so.

Standard library only; PERFT_BINARY and PERFT_FIXTURES are set by ctest.
"""

import math
import os
import subprocess
import sys
import tempfile

from tensor_files import read, write

LIMIT = 1.25
BATCHES = 5
# An error of bf16's size: a fixture of something else would excuse anything, and f32 in bf16's place would pass.
SMALLEST, TOKEN_LIMIT = 0.003, 0.02


def score(model, batch, dtype, folder):
    output = os.path.join(folder, dtype + ".safetensors")
    command = [os.environ["PERFT_BINARY"], "score", "--model", model, "--input", batch, "--output", output, "--dtype", dtype]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120)
    return read(output)[1]["logits"]


def token_errors(logits, exact, mask):
    """rms error of each real token's logits."""
    assert logits.shape == exact.shape, (logits.shape, exact.shape)
    vocab, a, b = exact.shape[-1], logits.values, exact.values
    errors = []
    for token, real in enumerate(mask):
        if real:
            row = range(token * vocab, (token + 1) * vocab)
            errors.append(math.sqrt(math.fsum((a[i] - b[i]) ** 2 for i in row) / vocab))
    return errors


def rms(errors):
    return math.sqrt(math.fsum(x * x for x in errors) / len(errors))


def compare(family, prefix, golden, theirs):
    """What is wrong with this batch, as a list."""
    fixtures = os.environ["PERFT_FIXTURES"]
    model = os.path.join(fixtures, "golden", family, "checkpoint")
    with tempfile.TemporaryDirectory(prefix="perft-bf16-") as folder:
        batch = os.path.join(folder, "batch.safetensors")
        write(batch, {name: golden[prefix + name] for name in ("input_ids", "attention_mask")})
        exact = score(model, batch, "f64", folder)
        ours = score(model, batch, "bf16", folder)
    mask = golden[prefix + "attention_mask"].values
    reference, mine, hub = (
        token_errors(logits, exact, mask) for logits in (golden[prefix + "logits"], ours, theirs[prefix + "logits"])
    )
    ratio = rms(mine) / rms(hub)
    print(
        "%s %s%d tokens: rms error perft %.3e, transformers %.3e, ratio %.3f; worst token %.3e, %.3e"
        % (family, prefix, len(mine), rms(mine), rms(hub), ratio, max(mine), max(hub))
    )
    checks = {
        "f64 is not the golden's": rms(reference) <= 1e-5,
        "ratio over %g" % LIMIT: ratio <= LIMIT,
        "perft's error is not of bf16's size": SMALLEST <= rms(mine) and max(mine) <= TOKEN_LIMIT,
        "the fixture's error is not of bf16's size": SMALLEST <= rms(hub) and max(hub) <= TOKEN_LIMIT,
    }
    return ["%s %s: %s" % (family, prefix or "left.", text) for text, good in checks.items() if not good]


def main():
    if not os.access(os.environ.get("PERFT_BINARY", ""), os.X_OK):
        print("bf16_error_test.py: PERFT_BINARY is not an executable")
        return 77
    fixtures = os.environ["PERFT_FIXTURES"]
    failures, batches = [], 0
    for family in ("mixtral", "olmoe", "olmoe-64x8"):
        _, golden = read(os.path.join(fixtures, "golden", family, "base.safetensors"))
        _, theirs = read(os.path.join(fixtures, "bf16_logits", family + ".safetensors"))
        for prefix in ("", "right.", "nopad."):
            if prefix + "logits" in golden:
                failures += compare(family, prefix, golden, theirs)
                batches += 1
    if batches != BATCHES:
        failures.append("%d batches, not %d" % (batches, BATCHES))
    print("\n".join(failures) or "%d batches" % batches)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

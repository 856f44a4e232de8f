#!/usr/bin/env python3
"""bf16 logits of perft against those of transformers in bf16: error against f64 at most 1.25 times theirs.

Compared is the median over tokens of a token's rms error. The mean is also printed but not held: in a small random model a
few tokens stand so near a routing tie that rounding sends them to another expert, in either program, and one such token
outweighs all others.

Runs where torch, transformers, safetensors and numpy are installed (exit code 77 elsewhere). Checkpoints: the fixtures of
tests/fixtures/golden, or the folders given as arguments. Environment: PERFT_BINARY, PERFT_FIXTURES.
"""
import os
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import torch
    import transformers
    from safetensors.numpy import load_file, save_file
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

LIMIT = 1.25


def perft_logits(model, batch, dtype, folder):
    out = os.path.join(folder, f"{dtype}.safetensors")
    subprocess.run([os.environ["PERFT_BINARY"], "score", "--model", model, "--input", batch, "--output", out, "--dtype", dtype],
                   check=True, stdout=subprocess.DEVNULL)
    return load_file(out)["logits"].astype(np.float64)


def compare(model):
    config = transformers.AutoConfig.from_pretrained(model)
    generator = np.random.default_rng(7)
    ids = generator.integers(3, config.vocab_size, (4, min(64, config.max_position_embeddings)), dtype=np.int64)
    with tempfile.TemporaryDirectory() as folder:
        batch = os.path.join(folder, "batch.safetensors")
        save_file({"input_ids": ids, "attention_mask": np.ones_like(ids)}, batch)
        exact = perft_logits(model, batch, "f64", folder)
        ours = perft_logits(model, batch, "bf16", folder)
    hub = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16, attn_implementation="sdpa").eval()
    with torch.no_grad():
        theirs = hub(input_ids=torch.from_numpy(ids), attention_mask=torch.ones_like(torch.from_numpy(ids))).logits
    theirs = theirs.double().numpy()
    rows = [np.sqrt(np.mean((x - exact) ** 2, axis=-1)) for x in (ours, theirs)]  # one per token
    median = [float(np.median(x)) for x in rows]
    rms = [float(np.sqrt(np.mean(x**2))) for x in rows]
    ratio = median[0] / median[1]
    print(f"{model}: median token error perft {median[0]:.3e}, transformers {median[1]:.3e}, ratio {ratio:.3f}; "
          f"rms {rms[0]:.3e}, {rms[1]:.3e}, ratio {rms[0] / rms[1]:.3f}")
    return ratio <= LIMIT


def main():
    golden = os.path.join(os.environ.get("PERFT_FIXTURES", ""), "golden")
    models = sys.argv[1:] or sorted(
        os.path.join(golden, name, "checkpoint") for name in os.listdir(golden) if os.path.isdir(os.path.join(golden, name)))
    return 0 if all([compare(model) for model in models]) else 1


if __name__ == "__main__":
    sys.exit(main())

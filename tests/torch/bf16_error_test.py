#!/usr/bin/env python3
"""bf16 logits of perft against those of transformers in bf16: error against f64 at most 1.25 times theirs.

Random tokens, half of the rows left-padded. Held is the rms error of the real tokens whose routing rounding cannot change: those
with at least MARGIN between their last chosen and first unchosen router logit in every layer, in f64. bf16 moves a router logit by
0.07 at most and mostly by 0.01, so that a few tokens nearer to a tie go to another expert, in either program, not the same ones;
in the small random models one such token moves its logits by 0.1 to 0.5 and outweighs all others. The rms over all real tokens is
printed beside it. tests/cli/bf16_error_test.py holds the same without torch, on fewer tokens but leaving none out.

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
MARGIN = 0.05


def perft_logits(model, batch, dtype, folder):
    out = os.path.join(folder, f"{dtype}.safetensors")
    subprocess.run([os.environ["PERFT_BINARY"], "score", "--model", model, "--input", batch, "--output", out, "--dtype", dtype],
                   check=True, stdout=subprocess.DEVNULL)
    return load_file(out)["logits"].astype(np.float64)


def hub_logits(model, ids, mask, dtype):
    """transformers' logits, and the gap to a routing tie of every token: the smallest of its layers."""
    hub = transformers.AutoModelForCausalLM.from_pretrained(
        model, dtype=dtype, attn_implementation="sdpa", experts_implementation="eager"
    ).eval()
    with torch.no_grad():
        out = hub(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask), output_router_logits=True)
    k = hub.config.num_experts_per_tok
    ordered = [np.sort(layer.double().numpy(), axis=-1)[:, ::-1] for layer in out.router_logits]
    gap = np.min([layer[:, k - 1] - layer[:, k] for layer in ordered], axis=0)
    return out.logits.double().numpy(), gap.reshape(ids.shape)


def compare(model):
    config = transformers.AutoConfig.from_pretrained(model)
    generator = np.random.default_rng(7)
    ids = generator.integers(3, config.vocab_size, (8, min(64, config.max_position_embeddings)), dtype=np.int64)
    mask = np.ones_like(ids)
    for row in range(0, len(ids), 2):
        mask[row, : 3 + 4 * row] = 0
    with tempfile.TemporaryDirectory() as folder:
        batch = os.path.join(folder, "batch.safetensors")
        save_file({"input_ids": ids, "attention_mask": mask}, batch)
        exact = perft_logits(model, batch, "f64", folder)
        ours = perft_logits(model, batch, "bf16", folder)
    theirs, _ = hub_logits(model, ids, mask, torch.bfloat16)
    _, gap = hub_logits(model, ids, mask, torch.float64)
    real = mask == 1
    decided = real & (gap >= MARGIN)
    errors = [np.mean((x - exact) ** 2, axis=-1) for x in (ours, theirs)]
    held, everything = ([float(np.sqrt(np.mean(x[tokens]))) for x in errors] for tokens in (decided, real))
    ratio = held[0] / held[1]
    print(
        f"{model}: rms error of {decided.sum()} of {real.sum()} tokens, perft {held[0]:.3e}, transformers {held[1]:.3e}, ratio "
        f"{ratio:.3f}; of all {everything[0]:.3e}, {everything[1]:.3e}, ratio {everything[0] / everything[1]:.3f}"
    )
    return ratio <= LIMIT and decided.sum() >= 0.3 * real.sum()


def main():
    golden = os.path.join(os.environ.get("PERFT_FIXTURES", ""), "golden")
    models = sys.argv[1:] or sorted(
        os.path.join(golden, name, "checkpoint") for name in os.listdir(golden) if os.path.isdir(os.path.join(golden, name)))
    return 0 if all([compare(model) for model in models]) else 1


if __name__ == "__main__":
    sys.exit(main())

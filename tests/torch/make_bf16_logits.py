#!/usr/bin/env python3
"""Writes transformers' bf16 logits of the golden base batches to tests/fixtures/bf16_logits (its README says what they are).

usage: make_bf16_logits.py DESTINATION
Needs torch, transformers and safetensors. Environment: PERFT_FIXTURES, or the tests/fixtures beside this file.
"""
import os
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file

FIXTURES = os.environ.get("PERFT_FIXTURES") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures")


def main():
    (destination,) = sys.argv[1:]
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    golden = os.path.join(FIXTURES, "golden")
    for family in sorted(name for name in os.listdir(golden) if os.path.isdir(os.path.join(golden, name))):
        batches = load_file(os.path.join(golden, family, "base.safetensors"))
        model = transformers.AutoModelForCausalLM.from_pretrained(
            os.path.join(golden, family, "checkpoint"),
            dtype=torch.bfloat16,
            attn_implementation="sdpa",
            experts_implementation="eager",
        ).eval()
        logits = {}
        for prefix in ("", "right.", "nopad."):
            if prefix + "logits" in batches:
                inputs = {name: batches[prefix + name] for name in ("input_ids", "attention_mask")}
                with torch.no_grad():
                    logits[prefix + "logits"] = model(**inputs).logits.contiguous()
        assert all(tensor.dtype == torch.bfloat16 for tensor in logits.values())
        made_with = f"torch {torch.__version__}, transformers {transformers.__version__}"
        save_file(logits, os.path.join(destination, family + ".safetensors"), metadata={"made_with": made_with})


if __name__ == "__main__":
    main()

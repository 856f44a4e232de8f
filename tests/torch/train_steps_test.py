#!/usr/bin/env python3
"""50 steps of `perft finetune` against PyTorch: every step's train loss, the validation losses and the final weights.

The PyTorch side starts from what a user has (rows, tokenizer.json, a checkpoint, a seed) and repeats the whole recipe: prompt, EOS,
cutoff and mask of the prompt; the held-back rows and each epoch's order (numpy's Philox); left padding to a multiple of 8 as published,
or none; gradient accumulation; the load-balance loss of transformers; AdamW, warm-up and decay, clipping. Models and optimizer are
transformers' and torch's own, the adapters are written here from the paper's equations. Only the initial adapter weights come from perft.

Held, in f32: every loss and every final weight to 1e-4. With adapters all three stay near 1e-6. With every weight trained AdamW moves
elements whose gradient is near its eps of 1e-8 by up to lr a step, whatever that gradient's size, so that their rounding shows: at an lr
of 1e-3 the worst of 3.3 million weights differed by 1.9e-4 (rms 3e-7). That run is held at 1e-4, a rate it would be trained with.

Runs where torch, transformers, tokenizers, safetensors and numpy are installed (exit code 77 elsewhere). Without --all only the runs of
QUICK: all take three minutes of one idle core.
  train_steps_test.py [--all | --only NAME] [--json FILE]
Environment: PERFT_BINARY, PERFT_FIXTURES.
"""
import argparse
import ctypes
import json
import os
import platform
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import tokenizers
    import torch
    import torch.nn.functional as F
    import transformers
    from safetensors.torch import load_file
    from torch import nn

    transformers.utils.logging.disable_progress_bar()
    for parameter in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD: keep freed memory, page faults of fresh logits were half of the time
        ctypes.CDLL(None).mallopt(parameter, 1 << 30)
    torch.set_num_threads(1)  # products this small lose more at OpenMP's barriers than a second core gives, above all beside other tests
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

FIXTURES = os.environ["PERFT_FIXTURES"]
DATA = os.path.join(FIXTURES, "..", "..", "demo", "data")
STEPS, WARMUP, BATCH, MICRO, VAL, SEED, CUTOFF, EVAL = 50, 10, 6, 4, 12, 42, 96, 25
COEF = {"olmoe": 0.01, "mixtral": 0.02}
LIMIT = 1e-4
LR = {"full": 1e-4}  # else DEFAULT_LR: a hundred times the published rate, so that 50 steps go somewhere
DEFAULT_LR = 1e-3
# name: family, method, options of its own, --pad-rows, --train-on-inputs
RUNS = {
    "olmoe-perft-r": ("olmoe", "perft-r", {"experts": 4, "top-k": 2, "rank": 8}, "hf", True),
    "mixtral-perft-r": ("mixtral", "perft-r", {"experts": 4, "top-k": 2, "rank": 8}, "ignore", False),
    "olmoe-perft-s": ("olmoe", "perft-s", {"rank": 8}, "ignore", True),
    "mixtral-perft-e": ("mixtral", "perft-e", {"rank": 4}, "hf", True),
    "olmoe-perft-d-parallel": ("olmoe", "perft-d", {"experts": 2, "rank": 8, "delta": "parallel"}, "hf", False),
    "mixtral-lora": ("mixtral", "lora", {"lora-targets": "q_proj,k_proj,v_proj,o_proj", "rank": 8}, "hf", True),
    "olmoe-full": ("olmoe", "full", {}, "hf", True),
}
QUICK = ("olmoe-perft-r", "mixtral-perft-r")


# ---------------------------------------------------------------- what there is before: a checkpoint and rows
def make_checkpoint(family, folder):
    common = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_experts_per_tok=2, intermediate_size=32,
                  max_position_embeddings=512, initializer_range=0.1, router_aux_loss_coef=COEF[family])
    torch.manual_seed(1)
    if family == "olmoe":
        config = transformers.OlmoeConfig(vocab_size=50304, num_experts=8, num_key_value_heads=4, eos_token_id=50279, pad_token_id=1, **common)
        model = transformers.OlmoeForCausalLM(config)
    else:
        config = transformers.MixtralConfig(vocab_size=32000, num_local_experts=4, num_key_value_heads=2, eos_token_id=2, **common)
        model = transformers.MixtralForCausalLM(config)
    config.initializer_range = 0.02  # what PERFT-R's router starts from
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(p + 0.1 * torch.randn_like(p) if p.ndim == 1 else 0.1 * torch.randn_like(p))
    model.save_pretrained(folder)
    with open(os.path.join(FIXTURES, "tokenizers", family, "tokenizer.json"), "rb") as source:
        with open(os.path.join(folder, "tokenizer.json"), "wb") as target:
            target.write(source.read())
    return config.eos_token_id


def encode(rows, tokenizer, eos, train_on_inputs):
    """Rows as (ids, labels): LLM-Adapters' generate_and_tokenize_prompt with the alpaca prompt."""
    out = []
    for row in rows:
        with_input = bool(row.get("input"))
        prompt = ("Below is an instruction that describes a task"
                  + (", paired with an input that provides further context" if with_input else "")
                  + ". Write a response that appropriately completes the request.\n\n### Instruction:\n" + row["instruction"]
                  + ("\n\n### Input:\n" + row["input"] if with_input else "") + "\n\n### Response:\n")
        ids = tokenizer.encode(prompt + row["output"]).ids[:CUTOFF]
        if ids[-1] != eos and len(ids) < CUTOFF:
            ids.append(eos)
        masked = 0 if train_on_inputs else min(len(ids), len(tokenizer.encode(prompt).ids))
        out.append((ids, [-100] * masked + ids[masked:]))
    return out


class Shuffler:
    """Philox4x32-10 on (seed, stream), then Fisher-Yates with Lemire's rejection."""

    def __init__(self, seed, stream):
        self.key, self.stream, self.block, self.words = (seed & 0xFFFFFFFF, seed >> 32), stream, 0, []

    def next(self):
        if not self.words:
            c = [self.block & 0xFFFFFFFF, self.block >> 32, self.stream & 0xFFFFFFFF, self.stream >> 32]
            k = list(self.key)
            for _ in range(10):
                p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
                c = [(q >> 32) ^ c[1] ^ k[0], q & 0xFFFFFFFF, (p >> 32) ^ c[3] ^ k[1], p & 0xFFFFFFFF]
                k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
            self.block, self.words = self.block + 1, c
        return self.words.pop(0)

    def below(self, bound):
        while True:
            product = self.next() * bound
            if product & 0xFFFFFFFF >= (2**32 - bound) % bound:
                return product >> 32

    def shuffled(self, items):
        items = list(items)
        for left in range(len(items), 1, -1):
            j = self.below(left)
            items[left - 1], items[j] = items[j], items[left - 1]
        return items


def stream(name):
    return int.from_bytes(name.encode(), "big") << 32


# ---------------------------------------------------------------- adapters, from the paper's equations
class Delta(nn.Module):
    def __init__(self, d, r, form, out=None):
        super().__init__()
        first, second = ("lora_A", "lora_B") if form == "lora" else ("w1", "w2")
        setattr(self, first, nn.Linear(d, r, bias=False))
        setattr(self, second, nn.Linear(r, out or d, bias=False))
        self.down, self.up, self.form = (lambda x: getattr(self, first)(x)), (lambda z: getattr(self, second)(z)), form

    def forward(self, x):  # alpha = 2 r
        return 2 * self.up(self.down(x)) if self.form == "lora" else self.up(F.silu(self.down(x)))


def topk_weights(logits, k, renormalise):
    w, chosen = torch.topk(F.softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32)), k, dim=-1)
    return (w / w.sum(-1, keepdim=True) if renormalise else w).to(logits.dtype), chosen


class PerftBlock(nn.Module):
    """y = MoE(x) + sum_j g_j(x) delta_j(x); g: 1 (S, D), the top-k of an own router (R), the base's gates (E)."""

    def __init__(self, moe, method, experts, top_k, rank, form, d, renormalise, base_k):
        super().__init__()
        self.moe, self.method, self.k, self.renormalise, self.base_k = moe, method, top_k, renormalise, base_k
        self.experts = nn.ModuleList(Delta(d, rank, form) for _ in range(experts))
        if method == "perft-r":
            self.router = nn.Linear(d, experts, bias=False)

    def forward(self, x):
        h = x.reshape(-1, x.shape[-1])
        if self.method in ("perft-s", "perft-d"):
            gates = h.new_ones(h.shape[0], len(self.experts))
        else:
            self.logits = self.router(h) if self.method == "perft-r" else F.linear(h, self.moe.gate.weight)
            w, chosen = topk_weights(self.logits, self.k if self.method == "perft-r" else self.base_k, self.renormalise)
            gates = torch.zeros_like(self.logits).scatter(1, chosen, w)
        y = sum(gates[:, j, None] * expert(h) for j, expert in enumerate(self.experts))
        return self.moe(x) + y.view_as(x)


class LoraLinear(nn.Module):
    def __init__(self, base, rank):
        super().__init__()
        self.base, self.lora = base, Delta(base.in_features, rank, "lora", base.out_features)

    def forward(self, x):
        return self.base(x) + self.lora(x)


def attach(model, family, method, options):
    config = model.config
    experts = config.num_experts if family == "olmoe" else config.num_local_experts
    renormalise = family == "mixtral"
    for p in model.parameters():
        p.requires_grad_(method == "full")
    for layer in model.model.layers:
        layer.mlp.register_forward_hook(lambda moe, x, _: setattr(moe, "logits", F.linear(x[0].reshape(-1, x[0].shape[-1]), moe.gate.weight)))
        if method.startswith("perft"):
            own = {"perft-s": 1, "perft-e": experts}.get(method) or options["experts"]
            layer.mlp = PerftBlock(layer.mlp, method, own, options.get("top-k"), options["rank"], options.get("delta", "lora"), config.hidden_size,
                                   renormalise, config.num_experts_per_tok)
        for target in options.get("lora-targets", "").split(",") if method == "lora" else []:
            setattr(layer.self_attn, target, LoraLinear(getattr(layer.self_attn, target), options["rank"]))


def trained(model, method):
    """{hub or adapter name: parameter}; for full the hub's fused tensors stay fused."""
    names = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            names[name.replace("_proj.lora.", "_proj.") if method == "lora" else name.replace(".mlp.", ".mlp.perft.") if method != "full" else name] = p
    return names


def load_balance(logits, k, mask):
    """transformers' load_balancing_loss_func over the layers' router logits, by its formula."""
    p = F.softmax(torch.cat(logits), dim=-1)
    m = mask.reshape(-1).repeat(len(logits)).to(p.dtype)[:, None]
    chosen = F.one_hot(torch.topk(p, k, dim=-1).indices, p.shape[-1]).sum(1)
    return p.shape[-1] * ((chosen * m).sum(0) / m.sum() * ((p * m).sum(0) / m.sum())).sum()


def padded(rows, columns, left):
    """ids, mask, targets [B, columns]; target t is what position t is scored on."""
    ids, mask, labels = (torch.full((len(rows), columns), fill) for fill in (0, 0, -100))
    for i, (row_ids, row_labels) in enumerate(rows):
        where = slice(columns - len(row_ids), columns) if left else slice(0, len(row_ids))
        ids[i, where], mask[i, where], labels[i, where] = torch.tensor(row_ids), 1, torch.tensor(row_labels)
    return ids, mask, F.pad(labels, (0, 1), value=-100)[:, 1:]


class Run:
    def __init__(self, model, family, method, options, pad_rows):
        self.model, self.family, self.method, self.left = model, family, method, pad_rows == "hf"
        self.k, self.own_k = model.config.num_experts_per_tok, options.get("top-k")

    def micro_batches(self, rows):
        columns = -(-max(len(ids) for ids, _ in rows) // 8) * 8  # of the whole batch
        return [padded(rows[i:i + MICRO], columns, self.left) for i in range(0, len(rows), MICRO)]

    def nll(self, ids, mask, targets):
        logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), ignore_index=-100, reduction="sum")

    def backward(self, rows):
        """Gradients of one batch; the lm loss."""
        batches = self.micro_batches(rows)
        count = sum((targets != -100).sum() for _, _, targets in batches)
        tokens = sum(mask.sum() for _, mask, _ in batches)
        lm = 0.0
        for ids, mask, targets in batches:
            part = self.nll(ids, mask, targets) / count
            blocks = [layer.mlp for layer in self.model.model.layers]
            aux = load_balance([(block.moe if isinstance(block, PerftBlock) else block).logits for block in blocks], self.k, mask)
            if self.method == "perft-r":
                aux = aux + load_balance([block.logits for block in blocks], self.own_k, mask)
            (part + COEF[self.family] * aux * (mask.sum() / tokens)).backward()
            lm += part.item()
        return lm

    @torch.no_grad()
    def validate(self, rows):
        total, count = 0.0, 0
        for begin in range(0, len(rows), BATCH):
            for ids, mask, targets in self.micro_batches(rows[begin:begin + BATCH]):
                total, count = total + self.nll(ids, mask, targets).item(), count + int((targets != -100).sum())
        return total / count


# ---------------------------------------------------------------- both sides
def perft(model, data, out, method, options, pad_rows, train_on_inputs, lr, steps):
    command = [os.environ["PERFT_BINARY"], "finetune", "--model", model, "--data", data, "--out", out, "--method", method, "--dtype", "f32",
               "--lr", str(lr), "--warmup", str(WARMUP), "--max-steps", str(steps), "--batch-size", str(BATCH), "--micro-batch-size", str(MICRO),
               "--cutoff", str(CUTOFF), "--val-size", str(VAL), "--eval-every", str(EVAL), "--save-every", str(steps), "--seed", str(SEED),
               "--pad-rows", pad_rows, "--train-on-inputs", "true" if train_on_inputs else "false"]
    if method != "full":
        command += ["--dropout", "0"]
    for name, value in options.items():
        command += ["--" + name, str(value)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def compare(name, folder):
    family, method, options, pad_rows, train_on_inputs = RUNS[name]
    model_folder, data = os.path.join(folder, family), os.path.join(folder, "rows.json")
    eos = json.load(open(os.path.join(model_folder, "config.json")))["eos_token_id"]
    settings = (method, options, pad_rows, train_on_inputs)
    lr = LR.get(method, DEFAULT_LR)
    start, out = os.path.join(folder, name + "-start"), os.path.join(folder, name)
    if method != "full":
        perft(model_folder, data, start, *settings, lr=0, steps=1)
    perft(model_folder, data, out, *settings, lr=lr, steps=STEPS)
    metrics = [json.loads(line) for line in open(os.path.join(out, "metrics.jsonl"))]

    model = transformers.AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32, attn_implementation="sdpa", experts_implementation="eager").train()
    attach(model, family, method, options)
    weights = trained(model, method)
    if method != "full":
        initial = load_file(os.path.join(start, "checkpoint-1", "adapter_model.safetensors"))
        assert set(initial) == set(weights), sorted(set(initial) ^ set(weights))
        with torch.no_grad():
            for key, p in weights.items():
                p.copy_(initial[key])
    before = {key: p.detach().clone() for key, p in weights.items()}

    rows = encode(json.load(open(data)), tokenizers.Tokenizer.from_file(os.path.join(model_folder, "tokenizer.json")), eos, train_on_inputs)
    order = Shuffler(SEED, stream("spli")).shuffled(range(len(rows)))
    held_back, train = sorted(order[:VAL]), sorted(order[VAL:])
    per_epoch = -(-len(train) // BATCH)
    run = Run(model, family, method, options, pad_rows)
    optimizer = torch.optim.AdamW(weights.values(), lr=lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, WARMUP, STEPS)
    validation = [rows[i] for i in held_back]
    losses, val_losses = [], {0: run.validate(validation)}
    for step in range(STEPS):
        if step % per_epoch == 0:
            epoch = Shuffler(SEED, stream("epoc") + step // per_epoch).shuffled(train)
        begin = step % per_epoch * BATCH
        losses.append(run.backward([rows[i] for i in epoch[begin:begin + BATCH]]))
        nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if (step + 1) % EVAL == 0:
            val_losses[step + 1] = run.validate(validation)

    ours = [line["train_loss"] for line in metrics if "lr" in line]
    ours_val = {line["step"]: line["val_loss"] for line in metrics if "val_loss" in line}
    assert len(ours) == STEPS and ours_val.keys() == val_losses.keys(), (len(ours), ours_val)
    checkpoint = os.path.join(out, f"checkpoint-{STEPS}")
    if method == "full":
        final = dict(transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).named_parameters())
    else:
        final = load_file(os.path.join(checkpoint, "adapter_model.safetensors"))
    difference = torch.cat([(final[key] - p).abs().flatten() for key, p in weights.items()])
    result = {"name": name, "lr": lr, "train_loss": max(abs(a - b) for a, b in zip(ours, losses)),
              "validation_loss": max(abs(ours_val[s] - val_losses[s]) for s in ours_val), "weights": difference.max().item(),
              "weights_rms": difference.double().square().mean().sqrt().item(),
              "weights_moved": max((p - before[key]).abs().max().item() for key, p in weights.items()),
              "first_loss": losses[0], "last_loss": losses[-1], "last_validation_loss": val_losses[STEPS]}
    print(f"{name}: largest difference of train losses {result['train_loss']:.2e}, validation losses {result['validation_loss']:.2e}, "
          f"weights {result['weights']:.2e} (rms {result['weights_rms']:.1e}; moved by up to {result['weights_moved']:.2e}); "
          f"loss {losses[0]:.4f} -> {losses[-1]:.4f}", flush=True)
    return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--only")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory(prefix="perft-torch-") as folder:
        for family in COEF:
            make_checkpoint(family, os.path.join(folder, family))
        rows = []
        for source in ("openbookqa", "ARC-Easy", "boolq"):
            rows += json.load(open(os.path.join(DATA, source + ".json")))[:40]
        for row in rows[::5]:  # some rows with an input
            row["instruction"], row["input"] = row["instruction"].split(":", 1)
        json.dump(rows, open(os.path.join(folder, "rows.json"), "w"))
        for name in RUNS:
            if name == arguments.only or arguments.only is None and (arguments.all or name in QUICK):
                results.append(compare(name, folder))
    if arguments.json:
        cpu = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
        with open(arguments.json, "w") as out:
            json.dump({"command": "tests/torch/train_steps_test.py " + " ".join(sys.argv[1:]), "machine": cpu, "torch": torch.__version__,
                       "transformers": transformers.__version__, "steps": STEPS, "limit": LIMIT, "runs": results}, out, indent=1)
            out.write("\n")
    wrong = [f"{result['name']}: {key} {result[key]:.2e}" for result in results for key in ("train_loss", "validation_loss", "weights")
             if not result[key] <= LIMIT]
    idle = [result["name"] for result in results if result["weights_moved"] < 20 * LIMIT]
    print(f"beyond {LIMIT}: {wrong}; hardly moved: {idle}" if wrong or idle else f"{len(results)} runs of {STEPS} steps equal PyTorch's to {LIMIT}")
    return 1 if wrong or idle or not results else 0


if __name__ == "__main__":
    sys.exit(main())

"""Small fine-tuning runs that are killed, refused and resumed, for crash_test.py and disk_fault_test.py.

Environment: PERFT_BINARY, PERFT_FAULT_SHIM (fault_shim.c, built).
"""
import array
import collections
import copy
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import tempfile

import tensor_files

BINARY = os.environ["PERFT_BINARY"]
SHIM = os.environ["PERFT_FAULT_SHIM"]
VOCABULARY, HIDDEN, INNER, EXPERTS = 260, 16, 8, 4
STEPS = 7

COMMON = ["--json", "--dtype", "f32", "--threads", "1", "--warmup", "2", "--batch-size", "4", "--val-size", "6", "--eval-every", "3",
          "--save-every", "2", "--cutoff", "64"]
# A rate so high that the best validation loss is not the last: the best checkpoint must outlive --keep.
ADAPTER = [*COMMON, "--method", "perft-r", "--experts", "2", "--top-k", "1", "--rank", "2", "--dropout", "0.2", "--lr", "1"]
FULL = [*COMMON, "--method", "full", "--lr", "5"]

Call = collections.namedtuple("Call", "number name path place")


def write_model(folder):
    """A one-layer OLMoE in BF16 with random weights and a tokenizer of single bytes."""
    os.mkdir(folder)
    rng = random.Random(5)

    def tensor(*shape):
        count = 1
        for extent in shape:
            count *= extent
        numbers = array.array("f", [rng.gauss(0, 0.3) if len(shape) > 1 else 1.0 for _ in range(count)])
        bits = array.array("I", numbers.tobytes())
        return tensor_files.Tensor("BF16", list(shape), array.array("H", [word >> 16 for word in bits]).tobytes())

    layer = "model.layers.0."
    tensors = {"model.embed_tokens.weight": tensor(VOCABULARY, HIDDEN)}
    for name in ("q", "k", "v", "o"):
        tensors[f"{layer}self_attn.{name}_proj.weight"] = tensor(HIDDEN, HIDDEN)
    for name in ("q_norm", "k_norm"):
        tensors[f"{layer}self_attn.{name}.weight"] = tensor(HIDDEN)
    tensors[f"{layer}mlp.gate.weight"] = tensor(EXPERTS, HIDDEN)
    for expert in range(EXPERTS):
        for name, shape in (("gate", (INNER, HIDDEN)), ("up", (INNER, HIDDEN)), ("down", (HIDDEN, INNER))):
            tensors[f"{layer}mlp.experts.{expert}.{name}_proj.weight"] = tensor(*shape)
    for name in ("input_layernorm", "post_attention_layernorm"):
        tensors[f"{layer}{name}.weight"] = tensor(HIDDEN)
    tensors["model.norm.weight"] = tensor(HIDDEN)
    tensors["lm_head.weight"] = tensor(VOCABULARY, HIDDEN)
    tensor_files.write(os.path.join(folder, "model.safetensors"), tensors)
    config = {"architectures": ["OlmoeForCausalLM"], "model_type": "olmoe", "hidden_size": HIDDEN, "intermediate_size": INNER,
              "num_attention_heads": 2, "num_key_value_heads": 2, "num_hidden_layers": 1, "num_experts": EXPERTS,
              "num_experts_per_tok": 2, "norm_topk_prob": False, "vocab_size": VOCABULARY, "max_position_embeddings": 128,
              "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "router_aux_loss_coef": 0.01,
              "initializer_range": 0.02, "tie_word_embeddings": False, "eos_token_id": 257, "pad_token_id": 256}
    with open(os.path.join(folder, "config.json"), "w") as out:
        json.dump(config, out)
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]  # GPT-2's names of bytes
    names = {byte: chr(byte) for byte in printable}
    names.update({byte: chr(256 + i) for i, byte in enumerate(byte for byte in range(256) if byte not in names)})
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    added = [{"id": 256 + i, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for i, text in enumerate(("<|padding|>", "<|endoftext|>"))]
    tokenizer = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
                 "pre_tokenizer": level, "post_processor": level, "decoder": level,
                 "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                           "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                           "vocab": {name: byte for byte, name in names.items()}, "merges": []}}
    with open(os.path.join(folder, "tokenizer.json"), "w") as out:
        json.dump(tokenizer, out)


def write_rows(path, count=30):
    with open(path, "w") as out:
        json.dump([{"instruction": f"{a} plus {a % 7} is ", "output": str(a + a % 7)} for a in range(count)], out)


def listing(folder):
    """Every file and folder below, but for what is removed at the end."""
    return sorted(os.path.relpath(os.path.join(root, name), folder)
                  for root, folders, files in os.walk(folder) for name in [*folders, *files])


def read(*parts):
    with open(os.path.join(*parts), "rb") as file:
        return file.read()


def metrics(folder):
    """metrics.jsonl without what differs from run to run."""
    lines = [json.loads(line) for line in read(folder, "metrics.jsonl").splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", "anonymous_bytes")} for line in lines]


def records(folder):
    """Whole records of the event file; None if it ends inside one."""
    content, count, at = read(folder, "events.out.tfevents.perft"), 0, 0
    while at < len(content):
        at += 16 + int.from_bytes(content[at:at + 8], "little")
        count += 1
    return count if at == len(content) else None


class Runs:
    """A model, data, and what an uninterrupted run with `options` leaves."""

    def __init__(self, options, keep=1):
        memory = "/dev/shm"  # hundreds of runs with ten fsync a checkpoint: minutes on a disk
        self.work = tempfile.mkdtemp(prefix="perft-crash-", dir=memory if os.access(memory, os.W_OK) else None)
        self.model, self.data, self.prompt = (os.path.join(self.work, name) for name in ("model", "rows.json", "prompt.json"))
        write_model(self.model)
        write_rows(self.data)
        with open(self.prompt, "w") as out:
            json.dump({"train": {"with_input": "{instruction}{input}{output}", "without_input": "{instruction}{output}"}}, out)
        self.options, self.keep, self.steps, self.failures, self.numbers = options, keep, STEPS, [], itertools.count(1)
        self.weights = "model.safetensors" if "full" in options else "adapter_model.safetensors"
        self.last = "config.json" if "full" in options else "adapter_config.json"
        # The checkpoint of every step: --keep and --save-every change which there are and nothing in them.
        self.all = self.begin("all", "--keep", "100", "--save-every", "1")
        self.reference, self.calls = self.logged("reference")
        self.expected = listing(self.reference)
        self.earlier = self.reference  # whose result may still be the one in the folder

    def extended(self, steps):
        """The same for a finished run that goes on to more steps."""
        other = copy.copy(self)
        other.steps = steps
        other.all = os.path.join(self.work, "all-extended")
        shutil.copytree(self.all, other.all)
        done = other.run(other.all, options=("--keep", "100", "--save-every", "1"))
        assert done.returncode == 0, done.stderr
        other.reference, other.calls = other.logged("extended", self.reference)
        other.expected = listing(other.reference)
        return other

    def close(self):
        shutil.rmtree(self.work)

    def check(self, condition, text):
        if not condition:
            self.failures.append(text)
            print("FAILED:", text, flush=True)
        return condition

    def command(self, folder, *options):
        """`options` take the place of those that all runs have."""
        words = ["--model", self.model, "--data", self.data, "--prompt", self.prompt, "--keep", str(self.keep), "--max-steps", str(self.steps),
                 *[word for word in self.options if word != "--json"]]
        common = dict(zip(words[::2], words[1::2]))
        common.update(zip(options[::2], options[1::2]))
        return [BINARY, "finetune", "--out", folder, "--resume", "--json", *(word for pair in common.items() for word in pair)]

    def run(self, folder, environment=None, options=()):
        return subprocess.run(self.command(folder, *options), capture_output=True, text=True, timeout=120,
                              env={**os.environ, **(environment or {})})

    def begin(self, name, *options):
        folder = os.path.join(self.work, name)
        done = self.run(folder, options=options)
        assert done.returncode == 0, done.stderr
        return folder

    def fault(self, folder, number, mode):
        return {"LD_PRELOAD": SHIM, "PERFT_FAULT_FOLDER": folder, "PERFT_FAULT_AT": str(number), "PERFT_FAULT_MODE": mode}

    def logged(self, name, state=None):
        """The folder of a run that goes on from `state`, uninterrupted, and the calls that it made there."""
        folder, log = os.path.join(self.work, name), os.path.join(self.work, name + ".log")
        if state is not None:
            shutil.copytree(state, folder)
        done = self.run(folder, {"LD_PRELOAD": SHIM, "PERFT_FAULT_FOLDER": folder, "PERFT_FAULT_LOG": log})
        assert done.returncode == 0, done.stderr
        calls = []
        for line in read(log).decode().splitlines():
            number, call, path = line.split(" ", 2)
            path = path.replace(folder + "/", "").replace(folder, ".")
            calls.append(Call(int(number), call, path, re.sub(r"\d+", "N", path)))
        return folder, calls

    def next_folder(self):
        return os.path.join(self.work, f"run-{next(self.numbers)}")

    def checkpoints(self, folder):
        """The steps whose checkpoint the program takes for a whole one; each is compared with the uninterrupted run's."""
        steps = []
        for name in os.listdir(folder) if os.path.isdir(folder) else []:
            held = os.listdir(os.path.join(folder, name)) if re.fullmatch(r"checkpoint-\d+", name) else []
            if {self.weights, self.last, "training_state.safetensors"} <= set(held):
                steps.append(int(name.split("-")[1]))
                whole = sorted(os.listdir(os.path.join(self.all, name)))
                self.check(sorted(held) == whole, f"{folder}/{name} holds {held}, expected {whole}")
                for file in whole:
                    self.check(file in held and read(folder, name, file) == read(self.all, name, file), f"{folder}/{name}/{file} differs")
        return steps

    def check_kept(self, folder, call, calls, text, state=None):
        """There was no moment without a checkpoint: the newest that was in place before `call`, or a newer one, is there."""
        before = self.checkpoints(state) if state else []
        for other in calls:
            saved = re.fullmatch(r"\S+ checkpoint-(\d+)", other.path)
            if other.name == "rename" and saved and other.number < call.number:
                before.append(int(saved[1]))
        left = self.checkpoints(folder)
        self.check(max(left, default=0) >= max(before, default=0), f"{text}: of the checkpoints {before} there are {left}")

    def check_whole_files(self, folder):
        """Nothing that has a final name is half there, whatever happened; metrics and events may end in a torn line."""
        self.checkpoints(folder)
        for name in os.listdir(folder) if os.path.isdir(folder) else []:
            if name in os.listdir(self.reference) and name not in ("metrics.jsonl", "events.out.tfevents.perft", "report.html",
                                                                  "run.toml") and os.path.isfile(os.path.join(folder, name)):
                self.check(read(folder, name) in (read(self.reference, name), read(self.earlier, name)), f"{folder}/{name} is not whole")
            if name == "report.html":
                self.check(read(folder, name).endswith(b"</html>\n"), f"{folder}/{name} is not whole")
            if name == self.last:
                missing = [other for other in os.listdir(self.all) if other not in os.listdir(folder) and "checkpoint-" not in other]
                self.check(not missing, f"{folder} is taken for a whole result and lacks {missing}")

    def check_finished(self, folder, text):
        """Resumes to the end and compares everything that is left with the uninterrupted run."""
        done = self.run(folder)
        if not self.check(done.returncode == 0, f"{text}: --resume: exit code {done.returncode}: {done.stderr.strip()}"):
            return
        self.check(listing(folder) == self.expected, f"{text}: holds {sorted(set(listing(folder)) ^ set(self.expected))}")
        self.check_whole_files(folder)
        self.check(read(folder, self.weights) == read(self.reference, self.weights), f"{text}: {self.weights} differs")
        self.check(metrics(folder) == metrics(self.reference), f"{text}: metrics.jsonl differs")
        self.check(records(folder) == records(self.reference), f"{text}: the event file has other records")
        self.check(f"<b>{self.steps}</b>".encode() in read(folder, "report.html"), f"{text}: report.html is not the last step's")
        shutil.rmtree(folder)


def spread(calls, rng, each=1):
    """A few calls of every kind and place: `each` of them, the first one always."""
    places = collections.defaultdict(list)
    for call in calls:
        places[call.name, call.place].append(call)
    chosen = []
    for same in places.values():
        chosen += [same[0], *rng.sample(same[1:], min(each - 1, len(same) - 1))]
    return sorted(chosen)

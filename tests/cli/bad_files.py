"""The broken model, adapter, batch and data files of bad_input.tsv: one small right one of each kind, and what is done to it.

FOLDERS[name]() gives the files of the folder that `{folder:NAME}` stands for, FILES[name]() the bytes of `{file:NAME}`.
"""

import json
import struct

FILES = {}
FOLDERS = {}

HIDDEN, HEADS, LAYERS, EXPERTS, INNER, VOCAB = 8, 2, 2, 4, 4, 260
FORMATS = {"F32": "f", "I64": "q", "I32": "i"}


# ---- safetensors ----

def tensor(shape, values=None, dtype="F32"):
    count = 1
    for extent in shape:
        count *= extent
    if values is None:  # small, different, reproducible
        values = [((37 * i) % 19 - 9) / 50 for i in range(count)]
    return dtype, list(shape), struct.pack(f"<{count}{FORMATS[dtype]}", *values)


def header_of(tensors):
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    return header


def with_header(text, data=b""):
    text = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(text)) + text + data


def safetensors(tensors, change=None):
    """The file; `change` may tell a lie in the parsed header."""
    header = header_of(tensors)
    if change:
        change(header)
    return with_header(json.dumps(header), b"".join(data for _, _, data in tensors.values()))


# ---- a right model ----

CONFIG = {
    "model_type": "olmoe", "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS, "intermediate_size": INNER, "num_experts": EXPERTS, "num_experts_per_tok": 2,
    "vocab_size": VOCAB, "max_position_embeddings": 512, "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "hidden_act": "silu",
    "norm_topk_prob": False, "router_aux_loss_coef": 0.01, "tie_word_embeddings": False, "pad_token_id": 1,
    "eos_token_id": 256,
}


def weights():
    tensors = {"model.embed_tokens.weight": tensor([VOCAB, HIDDEN])}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        for name in "qkvo":
            tensors[f"{prefix}self_attn.{name}_proj.weight"] = tensor([HIDDEN, HIDDEN])
        for name in ("self_attn.q_norm", "self_attn.k_norm", "input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}{name}.weight"] = tensor([HIDDEN], [1.0] * HIDDEN)
        tensors[f"{prefix}mlp.gate.weight"] = tensor([EXPERTS, HIDDEN])
        for expert in range(EXPERTS):
            for name, shape in (("gate", [INNER, HIDDEN]), ("up", [INNER, HIDDEN]), ("down", [HIDDEN, INNER])):
                tensors[f"{prefix}mlp.experts.{expert}.{name}_proj.weight"] = tensor(shape)
    tensors["model.norm.weight"] = tensor([HIDDEN], [1.0] * HIDDEN)
    tensors["lm_head.weight"] = tensor([VOCAB, HIDDEN])
    return tensors


def byte_level_tokenizer():
    """A tokenizer.json of the OLMoE kind with the 256 bytes and an end-of-text token, and no merges."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    end = {"id": 256, "content": "<|endoftext|>", "single_word": False, "lstrip": False, "rstrip": False,
           "normalized": False, "special": True}
    vocabulary = {alphabet[byte]: byte for byte in range(256)} | {"<|endoftext|>": 256}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [end], "normalizer": None,
        "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocabulary, "merges": []},
    }


def model(**changes):
    """Files of a right model folder, some replaced: key `config` for config.json and so on; None leaves a file out."""
    files = {
        "config.json": json.dumps(CONFIG).encode(),
        "tokenizer.json": json.dumps(byte_level_tokenizer()).encode(),
        "model.safetensors": safetensors(weights()),
    }
    names = {"config": "config.json", "tokenizer": "tokenizer.json", "weights": "model.safetensors",
             "index": "model.safetensors.index.json", "pickle": "pytorch_model.bin", "adapter": "adapter_config.json"}
    for key, content in changes.items():
        name = names.get(key, key)
        if content is None:
            del files[name]
        else:
            files[name] = content if isinstance(content, bytes) else json.dumps(content).encode()
    return files


def folder(name, make):
    FOLDERS[name] = make


folder("model", model)
folder("empty", dict)


# ---- safetensors that are missing, truncated, corrupt or lying ----

def weights_folder(name, content):
    folder(name, lambda: model(weights=content()))


def lying(name, change):
    weights_folder(name, lambda: safetensors(weights(), change))


FIRST, SECOND = "model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"
folder("no-weights", lambda: model(weights=None))
folder("pickle", lambda: model(weights=None, pickle=b"\x80\x02}q\x00."))
weights_folder("zero-bytes", lambda: b"")
weights_folder("five-bytes", lambda: b"\x08\0\0\0\0")
weights_folder("huge-length", lambda: struct.pack("<Q", 1 << 63) + b"{}")
weights_folder("long-length", lambda: struct.pack("<Q", 1000) + b"{}")
weights_folder("truncated", lambda: safetensors(weights())[:-100])
weights_folder("trailing", lambda: safetensors(weights()) + b"1234")
weights_folder("no-brace", lambda: with_header("[1, 2]"))
weights_folder("bad-header-json", lambda: with_header('{"a": {"dtype": "F32", }'))
weights_folder("deep-header", lambda: with_header("{\"a\":" + "[" * 5000 + "]" * 5000 + "}"))
ONE = '{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
weights_folder("duplicate-tensor", lambda: with_header(f'{{"a": {ONE}, "a": {ONE}}}', b"\0" * 4))
weights_folder("newline-in-name", lambda: with_header(f'{{"a\\nperft: error: b": {ONE}}}', b"\0" * 4))
weights_folder("metadata", lambda: with_header(f'{{"__metadata__": {{"format": 3}}, "a": {ONE}}}', b"\0" * 4))
lying("dtype-unknown", lambda h: h[FIRST].update(dtype="F99"))
lying("dtype-unsupported", lambda h: h[FIRST].update(dtype="F8_E4M3"))
lying("dtype-missing", lambda h: h[FIRST].pop("dtype"))
lying("shape-negative", lambda h: h[FIRST].update(shape=[-1, 8]))
lying("shape-text", lambda h: h[FIRST].update(shape="8"))
lying("shape-overflow", lambda h: h[FIRST].update(shape=[1 << 40, 1 << 40]))
lying("shape-size", lambda h: h[FIRST].update(shape=[VOCAB, HIDDEN + 1]))
lying("offsets-reversed", lambda h: h[FIRST].update(data_offsets=[8320, 0]))
lying("offsets-outside", lambda h: h[FIRST].update(data_offsets=[1 << 40, (1 << 40) + 8320]))
lying("offsets-one", lambda h: h[FIRST].update(data_offsets=[0]))
lying("offsets-overlap", lambda h: h[SECOND].update(data_offsets=[8316, 8572]))
lying("offsets-gap", lambda h: h.pop(SECOND))


# ---- tensors that are not the model's ----

def changed(name, change):
    def make():
        tensors = weights()
        change(tensors)
        return model(weights=safetensors(tensors))

    folder(name, make)


changed("tensor-missing", lambda t: t.pop(SECOND))
changed("tensors-missing", lambda t: [t.pop(name) for name in list(t) if ".layers.1." in name])
changed("tensor-unknown", lambda t: t.update({"model.layers.0.self_attn.q_proj.bias": tensor([HIDDEN])}))
changed("tensor-shape", lambda t: t.update({SECOND: tensor([HIDDEN, HIDDEN + 2])}))
changed("tensor-dtype", lambda t: t.update({SECOND: tensor([HIDDEN, HIDDEN], [0] * 64, "I64")}))
changed("tensor-twice", lambda t: t.update(
    {"model.layers.0.mlp.experts.down_proj": tensor([EXPERTS, HIDDEN, INNER])}))
changed("nan-weight", lambda t: t.update(
    {"model.layers.1.self_attn.v_proj.weight": tensor([HIDDEN, HIDDEN], [float("nan")] + [0.1] * 63)}))
changed("nan-embedding", lambda t: t.update({FIRST: tensor([VOCAB, HIDDEN], [float("inf")] * (VOCAB * HIDDEN))}))


# ---- shards ----

def shards(change_map=None, change_files=None):
    tensors = weights()
    names = list(tensors)
    parts = {"model-1.safetensors": names[:9], "model-2.safetensors": names[9:]}
    index = {"metadata": {}, "weight_map": {name: part for part, held in parts.items() for name in held}}
    held = {part: {name: tensors[name] for name in part_names} for part, part_names in parts.items()}
    if change_map:
        change_map(index["weight_map"])
    if change_files:
        change_files(held)
    return model(weights=None, index=index, **{part: safetensors(content) for part, content in held.items()})


folder("shards", shards)
folder("shard-missing", lambda: shards(change_files=lambda held: held.pop("model-2.safetensors")))
folder("shard-unlisted", lambda: shards(lambda m: m.pop(SECOND)))
folder("shard-absent", lambda: shards(lambda m: m.update(other="model-1.safetensors")))
folder("shard-elsewhere", lambda: shards(lambda m: m.update({SECOND: "model-2.safetensors"})))
folder("shard-outside", lambda: shards(lambda m: m.update({SECOND: "../secret.safetensors"})))
folder("shard-number", lambda: shards(lambda m: m.update({SECOND: 4})))
folder("index-json", lambda: model(weights=None, index=b'{"weight_map": {'))
folder("index-no-map", lambda: model(weights=None, index={"metadata": {}}))


# ---- config.json ----

def config_folder(name, **changes):
    folder(name, lambda: model(config={k: v for k, v in (CONFIG | changes).items() if v != "absent"}))


folder("no-config", lambda: model(config=None))
folder("config-json", lambda: model(config=b'{"model_type": "olmoe",'))
folder("config-array", lambda: model(config=[1]))
folder("config-utf8", lambda: model(config=b'{"model_type": "\xff"}'))
folder("config-deep", lambda: model(config=b'{"model_type":' + b"[" * 100000 + b"]" * 100000 + b"}"))
folder("config-twice", lambda: model(config=json.dumps(CONFIG).encode()[:-1] + b', "hidden_size": 16}'))
folder("generation-deep", lambda: model(**{"generation_config.json": b'{"eos_token_id":' + b"[" * 100000 + b"]" * 100000 + b"}"}))
folder("generation-twice", lambda: model(**{"generation_config.json": b'{"eos_token_id": 1, "eos_token_id": 2}'}))
config_folder("config-type-list", model_type=["olmoe"])
config_folder("config-type", model_type="llama")
config_folder("config-no-key", hidden_size="absent")
config_folder("config-text", hidden_size="8")
config_folder("config-negative", num_hidden_layers=-2)
config_folder("config-top-k", num_experts_per_tok=5)
config_folder("config-heads", num_attention_heads=3, num_key_value_heads=3)
config_folder("config-kv-heads", num_attention_heads=4, num_key_value_heads=3, head_dim=2)
config_folder("config-rope", rope_scaling={"type": "yarn", "factor": 4})
config_folder("config-quantised", quantization_config={"bits": 4})
config_folder("config-act", hidden_act="gelu")
config_folder("config-layers", num_hidden_layers=3)
config_folder("config-experts", num_experts=2)
config_folder("config-eps", rms_norm_eps=0)
config_folder("config-eos-far", eos_token_id=1 << 40)
folder("generation-eos", lambda: model(**{"generation_config.json": b'{"eos_token_id": [260]}'}))
config_folder("config-no-eos", eos_token_id=None)


# ---- adapters ----

ADAPTER = {
    "format": "perft-adapter", "version": 1, "base_model_type": "olmoe",
    "base": {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "vocab_size": VOCAB, "num_experts": EXPERTS},
    "method": "perft-r", "delta": "lora", "rank": 2, "alpha": 4.0, "experts": 2, "top_k": 1, "dropout": 0.0,
    "router_weights": "own", "targets": [],
}


def adapter_tensors():
    tensors = {}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}.mlp.perft."
        for expert in range(2):
            tensors[f"{prefix}experts.{expert}.lora_A.weight"] = tensor([2, HIDDEN])
            tensors[f"{prefix}experts.{expert}.lora_B.weight"] = tensor([HIDDEN, 2])
        tensors[f"{prefix}router.weight"] = tensor([2, HIDDEN])
    return tensors


def adapter(change=None, config=None, **changes):
    """A right adapter folder with its tensors changed by `change`, or its configuration by the keywords."""
    tensors = adapter_tensors()
    if change:
        change(tensors)
    settings = {k: v for k, v in (ADAPTER | changes).items() if v != "absent"}
    return {"adapter_config.json": json.dumps(settings).encode() if config is None else config,
            "adapter_model.safetensors": safetensors(tensors)}


A0 = "model.layers.0.mlp.perft.experts.0.lora_A.weight"
B1 = "model.layers.1.mlp.perft.experts.1.lora_B.weight"


def adapter_folder(name, *arguments, **changes):
    folder(name, lambda: adapter(*arguments, **changes))


adapter_folder("adapter")
folder("adapter-no-tensors", lambda: {"adapter_config.json": json.dumps(ADAPTER).encode()})
folder("adapter-and-model", lambda: model(adapter=ADAPTER))
adapter_folder("adapter-json", config=b"{")
adapter_folder("adapter-array", config=b"[]")
adapter_folder("adapter-deep", config=b'{"format":' + b"[" * 100000 + b"]" * 100000 + b"}")
adapter_folder("adapter-twice", config=json.dumps(ADAPTER).encode()[:-1] + b', "rank": 4}')
adapter_folder("adapter-rank-nested", rank=[[[2, 2]], [2, 2]])
adapter_folder("adapter-peft", config=b'{"peft_type": "LORA", "r": 8}')
adapter_folder("adapter-format", format="peft")
adapter_folder("adapter-version", version=2)
adapter_folder("adapter-method", method="perft-x")
adapter_folder("adapter-no-key", alpha="absent")
adapter_folder("adapter-rank-0", rank=0)
adapter_folder("adapter-rank-list", rank=[[2, 2]])
adapter_folder("adapter-rank-row", rank=[[2], [2]])
adapter_folder("adapter-rank-text", rank=[["two"]])
adapter_folder("adapter-top-k", top_k=3)
adapter_folder("adapter-dropout", dropout=1.0)
adapter_folder("adapter-target", method="lora", experts=0, top_k=0, targets=["q_prj"])
adapter_folder("adapter-no-target", method="lora", experts=0, top_k=0)
adapter_folder("adapter-lora-parallel", method="lora", experts=0, top_k=0, targets=["q_proj"], delta="parallel")
adapter_folder("adapter-family", base_model_type="mixtral")
adapter_folder("adapter-width", base=ADAPTER["base"] | {"hidden_size": 2048})
adapter_folder("adapter-perft-e", method="perft-e", experts=8, top_k=0)
adapter_folder("adapter-authors", experts=4, top_k=3, router_weights="authors-olmoe")
adapter_folder("adapter-nan", lambda t: t.update({A0: tensor([2, HIDDEN], [float("nan")] * 16)}))
adapter_folder("adapter-missing", lambda t: t.pop(A0))
adapter_folder("adapter-missing-b", lambda t: t.pop(B1))
adapter_folder("adapter-missing-router", lambda t: t.pop("model.layers.1.mlp.perft.router.weight"))
adapter_folder("adapter-missing-expert", lambda t: [t.pop(n) for n in list(t) if "layers.1" in n and "experts.1" in n])
adapter_folder("adapter-missing-layer", lambda t: [t.pop(n) for n in list(t) if "layers.1" in n])
adapter_folder("adapter-missing-no-base", lambda t: t.pop(B1), base="absent")
adapter_folder("adapter-none", lambda t: t.clear(), base="absent", method="perft-e", experts=0, top_k=0)
adapter_folder("adapter-width-no-base", lambda t: t.update({B1: tensor([HIDDEN + 1, 2])}), base="absent")
adapter_folder("adapter-layer", lambda t: t.update({A0.replace("layers.0", "layers.2"): tensor([2, HIDDEN])}))
adapter_folder("adapter-unknown", lambda t: t.update(extra=tensor([1])))
adapter_folder("adapter-shape", lambda t: t.update({A0: tensor([3, HIDDEN])}))
adapter_folder("adapter-dtype", lambda t: t.update({A0: tensor([2, HIDDEN], [0] * 16, "I64")}))


# ---- batches for score ----

def batch(name, ids=None, mask=None, labels="ids", **extra):
    ids = ids if ids is not None else [[5, 6, 7, 8], [5, 6, 7, 8]]
    mask = mask if mask is not None else [[1] * 4, [0, 1, 1, 1]]
    labels = ids if labels == "ids" else labels

    def make():
        tensors = {}
        for key, rows in (("input_ids", ids), ("attention_mask", mask), ("labels", labels)):
            if rows is not None:
                shape = [len(rows), len(rows[0])] if rows and isinstance(rows[0], list) else [len(rows)]
                flat = [v for row in rows for v in row] if len(shape) == 2 else rows
                tensors[key] = tensor(shape, flat, "I64")
        tensors.update(extra.get("tensors", {}))
        for key in extra.get("without", []):
            tensors.pop(key)
        return safetensors(tensors)

    FILES[name] = make


batch("batch")
batch("batch-id-high", ids=[[5, 260]], mask=[[1, 1]])
batch("batch-id-negative", ids=[[-1, 6]], mask=[[1, 1]])
batch("batch-mask-2", mask=[[1, 1, 1, 1], [0, 2, 1, 1]])
batch("batch-mask-hole", mask=[[1, 1, 1, 1], [1, 0, 1, 1]])
batch("batch-mask-shape", mask=[[1, 1, 1, 1]])
batch("batch-labels-shape", labels=[[5, 6, 7, 8]])
batch("batch-label-high", labels=[[5, 6, 7, 300], [5, 6, 7, 8]])
batch("batch-no-label", labels=[[5, -100, -100, -100]] * 2)
batch("batch-unlabelled", labels=None)
batch("batch-rank-1", ids=[5, 6, 7], mask=[1, 1, 1])
batch("batch-no-rows", tensors={key: tensor([0, 4], [], "I64") for key in ("input_ids", "attention_mask", "labels")})
batch("batch-i32", tensors={"input_ids": tensor([2, 4], [5] * 8, "I32")})
batch("batch-no-ids", without=["input_ids"])
batch("batch-no-mask", without=["attention_mask"])


# ---- rows, prompts, lines ----

def text(name, content):
    FILES[name] = lambda: content if isinstance(content, bytes) else content.encode()


ROW = '{"instruction": "Say yes.", "input": "", "output": "yes"}'
text("rows.json", "[" + ", ".join([ROW] * 8) + "]")
text("rows-empty.json", "")
text("rows-none.json", "[]")
text("rows-syntax.json", f"[{ROW}, {{")
text("rows-object.jsonl", f"{ROW}\n{{}}\n")
text("rows-text.json", "instruction,output\n")
text("rows-no-output.json", f'[{ROW}, {{"instruction": "a"}}]')
text("rows-number.json", f'[{ROW}, {{"instruction": "a", "output": 4}}]')
text("rows-not-object.json", f"[{ROW}, 4]")
text("rows-utf8.json", b'[{"instruction": "\xff", "output": "b"}]')
text("prompt.json", '{"train": {"with_input": "{instruction}{input}{output}", "without_input": "{instruction}"}}')
text("prompt-key.json", '{"training": {}}')
text("a-file", "not a folder")
text("line-2-syntax", '"yes"\n"no\n')
text("line-1-utf8", b'"\xff"\n')
text("line-1-number", "4\n")
text("line-1-empty", '\n"yes"\n')
text("line-1-lone-surrogate", '"\\ud800"\n')
text("line-1-text", '"yes"\n')
text("line-3-high", "[1]\n[2]\n[1, 70000]\n")
text("line-1-hole", "[258]\n")
text("line-1-negative", "[-1]\n")
text("line-1-fraction", "[1.5]\n")


def alpaca(row):
    """The training text of a row without input under the prompt alpaca."""
    return ("Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
            f"### Instruction:\n{row['instruction']}\n\n### Response:\n{row['output']}")


# ---- tokenizer.json ----

def tokenizer_folder(name, change):
    def make():
        content = byte_level_tokenizer()
        change(content)
        return model(tokenizer=content)

    folder(name, make)


folder("no-tokenizer", lambda: model(tokenizer=None))
folder("tokenizer-json", lambda: model(tokenizer=b'{"version": "1.0"'))
folder("tokenizer-twice", lambda: model(tokenizer=b'{"version": "1.0", "version": "1.0"}'))
folder("tokenizer-array", lambda: model(tokenizer=[]))
tokenizer_folder("tokenizer-no-model", lambda t: t.pop("model"))
tokenizer_folder("tokenizer-unigram", lambda t: t["model"].update(type="Unigram"))
tokenizer_folder("tokenizer-merge", lambda t: t["model"].update(merges=["a b"]))
tokenizer_folder("tokenizer-id", lambda t: t["model"]["vocab"].update(a=-4))
tokenizer_folder("tokenizer-id-far", lambda t: t["model"]["vocab"].update(Yes=16777215))
tokenizer_folder("tokenizer-added-far", lambda t: t["added_tokens"].append(
    t["added_tokens"][0] | {"id": 16777215, "content": "Yes", "special": False}))
tokenizer_folder("tokenizer-truncation", lambda t: t.update(truncation={"max_length": 4}))
tokenizer_folder("tokenizer-large", lambda t: (t["model"]["vocab"].update(Yes=300), t["added_tokens"].append(
    t["added_tokens"][0] | {"id": 300, "content": "Yes", "special": False})))
tokenizer_folder("tokenizer-large-used", lambda t: t["added_tokens"].append(
    t["added_tokens"][0] | {"id": 300, "content": "Say", "special": False}))


# ---- output folders that are taken ----

folder("run", lambda: {"run.toml": b'model = "m"\n', "metrics.jsonl": b""})

#!/usr/bin/env python3
"""perft inspect: counts against the files' own headers, norms against the values, expert load against routers that are known."""

import glob
import json
import math
import os
import struct
import subprocess
import tempfile

import bad_files
import score_golden_test
import tensor_files

PERFT = os.environ["PERFT_BINARY"]
FIXTURES = os.environ["PERFT_FIXTURES"]


def inspect(*arguments):
    result = subprocess.run([PERFT, "inspect", *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout


def inspect_json(*arguments):
    return json.loads(inspect(*arguments, "--json").splitlines()[-1])


def header(path):
    with open(path, "rb") as file:
        found = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    found.pop("__metadata__", None)
    return found


def write_folder(top, name, files):
    path = os.path.join(top, name)
    os.mkdir(path)
    for inner, content in files.items():
        with open(os.path.join(path, inner), "wb") as out:
            out.write(content)
    return path


def near(a, b, tolerance=1e-5):
    assert abs(a - b) <= tolerance * max(1, abs(b)), (a, b)


def test_golden_models():
    """Roles are counted from the names in the header, independently of the program's table of expected tensors."""
    for family, expert, router in (("olmoe", ".mlp.experts.", ".mlp.gate."),
                                   ("mixtral", ".block_sparse_moe.experts.", ".block_sparse_moe.gate."),
                                   ("olmoe-64x8", ".mlp.experts.", ".mlp.gate.")):
        folder = f"{FIXTURES}/golden/{family}/checkpoint"
        shapes = {name: math.prod(entry["shape"]) for name, entry in header(f"{folder}/model.safetensors").items()}
        with open(f"{folder}/config.json", encoding="utf-8") as file:
            config = json.load(file)
        experts = config.get("num_experts", config.get("num_local_experts"))
        found = inspect_json(folder)
        assert found["kind"] == "model" and found["family"] == config["model_type"]
        assert found["experts"] == experts and found["layers"] == config["num_hidden_layers"]
        roles = {role["role"]: role for role in found["roles"]}
        of = {"experts": [n for n in shapes if expert in n], "router": [n for n in shapes if router in n],
              "norms": [n for n in shapes if "norm" in n], "embedding": [n for n in shapes if "embed" in n],
              "attention": [n for n in shapes if "attn" in n and "norm" not in n], "head": [n for n in shapes if "lm_head" in n]}
        assert sum(map(len, of.values())) == len(shapes)
        for role, names in of.items():
            assert roles[role]["tensors"] == len(names), role
            assert roles[role]["parameters"] == sum(shapes[n] for n in names), role
            assert roles[role]["bytes"] == 4 * roles[role]["parameters"] and roles[role]["dtypes"] == ["F32"], role
        assert found["parameters"] == sum(shapes.values())
        one = sum(shapes[n] for n in of["experts"]) // experts
        assert found["active_parameters"] == found["parameters"] - one * (experts - config["num_experts_per_tok"])
        assert found["files"] == [{"file": f"{folder}/model.safetensors", "tensors": len(shapes),
                                   "bytes": os.path.getsize(f"{folder}/model.safetensors")}]
        assert f"{found['parameters']:,}" in inspect(folder)


def test_shards_and_tied(top):
    folder = write_folder(top, "shards", bad_files.shards())
    found = inspect_json(folder)
    assert [file["file"] for file in found["files"]] == [f"{folder}/model-{i}.safetensors" for i in (1, 2)]
    tensors = bad_files.weights()
    tensors.pop("lm_head.weight")
    tied = bad_files.model(config=bad_files.CONFIG | {"tie_word_embeddings": True}, weights=bad_files.safetensors(tensors))
    folder = write_folder(top, "tied", tied)
    found = inspect_json(folder)
    assert found["tied_embeddings"] and found["roles"][5]["tensors"] == 0 and "tied" in inspect(folder)


def test_adapter(top):
    tensors = bad_files.adapter_tensors()
    found = inspect_json(write_folder(top, "adapter", bad_files.adapter()))
    assert found["kind"] == "adapter" and found["method"] == "perft-r" and found["rank"] == 2
    assert found["parameters"] == 2 * (2 * 2 * 16 + 16) and found["tensors"] == len(tensors)

    def norm(layer, matrix):
        data = b"".join(d for name, (_, _, d) in tensors.items() if f"layers.{layer}." in name and matrix in name)
        return math.sqrt(sum(x * x for x in struct.unpack(f"<{len(data) // 4}f", data)))

    for place in found["places"]:
        assert place["place"] == "mlp.perft" and place["experts"] == 2
        assert place["least_rank"] == place["most_rank"] == 2
        near(place["norm_down"], norm(place["layer"], "lora_A"))
        near(place["norm_up"], norm(place["layer"], "lora_B"))
        near(place["norm_router"], norm(place["layer"], "router"))
    assert [place["layer"] for place in found["places"]] == [0, 1]


def test_golden_adapters(top):
    """Every adapter that PyTorch wrote is whole; without any one of its tensors, or with one too many, it is not."""
    count = 0
    for path in sorted(glob.glob(f"{FIXTURES}/golden/*/*.safetensors")):
        metadata, tensors = tensor_files.read(path)
        params = {name[len("param."):]: tensor for name, tensor in tensors.items() if name.startswith("param.")}
        with open(os.path.join(os.path.dirname(path), "checkpoint", "config.json"), encoding="utf-8") as file:
            base = json.load(file)
        if not params:
            continue
        config = score_golden_test.adapter_config(metadata, base, tensors, params)
        folder = write_folder(top, f"golden-{count}", {"adapter_config.json": json.dumps(config).encode()})
        weights = f"{folder}/adapter_model.safetensors"
        tensor_files.write(weights, params)
        found = inspect_json(folder)
        assert found["tensors"] == len(params) and found["parameters"] == sum(math.prod(t.shape) for t in params.values()), path
        assert sum(place["parameters"] for place in found["places"]) == found["parameters"], path
        facts = {key: base[key] for key in ("hidden_size", "num_hidden_layers", "vocab_size")}
        facts["num_experts"] = base.get("num_experts", base.get("num_local_experts"))
        config["base"] = facts
        with open(f"{folder}/adapter_config.json", "w", encoding="utf-8") as file:
            json.dump(config, file)
        assert inspect_json(folder)["places"] == found["places"], path
        for name in (list(params)[0], list(params)[-1], list(params)[len(params) // 2]):
            tensor_files.write(weights, {n: t for n, t in params.items() if n != name})
            done = subprocess.run([PERFT, "inspect", folder], capture_output=True, text=True, check=False, timeout=60)
            assert done.returncode == 1 and done.stderr == (
                f'perft: error: {weights}: tensor "{name}" is missing; check adapter_config.json against the file\n'), done.stderr
        count += 1
    assert count >= 30, count


def test_router(top):
    """Layer 0's router is zero: every token ties and takes the two lowest experts. Layer 1's is not."""
    tensors = bad_files.weights()
    tensors["model.layers.0.mlp.gate.weight"] = bad_files.tensor([4, 8], [0.0] * 32)
    folder = write_folder(top, "router", bad_files.model(weights=bad_files.safetensors(tensors)))
    rows = os.path.join(top, "rows.json")
    with open(rows, "wb") as out:
        out.write(bad_files.FILES["rows.json"]())
    for dtype in ("f32", "f64", "bf16"):
        found = inspect_json(folder, "--router", "--data", rows, "--dtype", dtype)["router"]
        text = bad_files.alpaca(json.loads(bad_files.ROW))
        assert found["rows"] == 8 and found["tokens"] == 8 * (len(text.encode()) + 1) and found["truncated"] == 0
        zero, other = found["layers"]
        assert zero["shares"] == [0.5, 0.5, 0, 0] and zero["dead"] == 2
        near(zero["entropy"], 0.5)
        near(zero["aux"], 2.0)
        assert zero["least_share"] == 0 and zero["most_share"] == 0.5
        near(sum(other["shares"]), 1)
        assert other["shares"] != zero["shares"] and other["most_share"] == max(other["shares"])
        near(other["entropy"], -sum(s * math.log(s) for s in other["shares"] if s > 0) / math.log(4))
    assert "expert load" in inspect(folder, "--router", "--data", rows)
    threads = [inspect(folder, "--router", "--data", rows, "--threads", n, "--json") for n in ("1", "2")]
    assert threads[0] == threads[1]


def forward_of_equal_tokens(tensors):
    """Router probabilities of layers 0 and 1 where every token has the same embedding: attention then gives v, whatever q and k are."""
    def values(name):
        return struct.unpack(f"<{len(tensors[name][2]) // 4}f", tensors[name][2])

    def times(name, x):
        w = values(name)
        return [sum(a * b for a, b in zip(w[row * len(x):(row + 1) * len(x)], x)) for row in range(len(w) // len(x))]

    def norm(x):
        scale = 1 / math.sqrt(sum(a * a for a in x) / len(x) + bad_files.CONFIG["rms_norm_eps"])
        return [a * scale for a in x]

    x, probabilities = values("model.embed_tokens.weight")[:bad_files.HIDDEN], []
    for layer in range(bad_files.LAYERS):
        prefix = f"model.layers.{layer}."
        attended = times(f"{prefix}self_attn.o_proj.weight", times(f"{prefix}self_attn.v_proj.weight", norm(x)))
        x = [a + b for a, b in zip(x, attended)]
        h = norm(x)
        powers = [math.exp(logit) for logit in times(f"{prefix}mlp.gate.weight", h)]
        probabilities.append([power / sum(powers) for power in powers])
        for expert in sorted(range(bad_files.EXPERTS), key=lambda e: (-probabilities[-1][e], e))[:2]:
            gate, up = (times(f"{prefix}mlp.experts.{expert}.{name}_proj.weight", h) for name in ("gate", "up"))
            out = times(f"{prefix}mlp.experts.{expert}.down_proj.weight", [g / (1 + math.exp(-g)) * u for g, u in zip(gate, up)])
            x = [a + probabilities[-1][expert] * b for a, b in zip(x, out)]
    return probabilities


def test_pooled_loss(top):
    """N sum_e f_e P_e with f and P over both layers' tokens, against a forward pass in Python. The two layers choose differently."""
    tensors = bad_files.weights()
    row = [((29 * i) % 13 - 6) / 5 for i in range(bad_files.HIDDEN)]
    tensors["model.embed_tokens.weight"] = bad_files.tensor([bad_files.VOCAB, bad_files.HIDDEN], row * bad_files.VOCAB)
    for layer in range(2):
        gate = [((31 * i + 7 * layer) % 17 - 8) / 4 for i in range(bad_files.EXPERTS * bad_files.HIDDEN)]
        tensors[f"model.layers.{layer}.mlp.gate.weight"] = bad_files.tensor([bad_files.EXPERTS, bad_files.HIDDEN], gate)
    folder = write_folder(top, "pooled", bad_files.model(weights=bad_files.safetensors(tensors)))
    rows = os.path.join(top, "pooled.json")
    with open(rows, "wb") as out:
        out.write(bad_files.FILES["rows.json"]())
    found = inspect_json(folder, "--router", "--data", rows, "--dtype", "f64")["router"]
    means = forward_of_equal_tokens(tensors)
    chosen = [[0.5 if e in sorted(range(4), key=lambda i: -p[i])[:2] else 0 for e in range(4)] for p in means]
    assert chosen[0] != chosen[1]
    for layer in range(2):
        assert found["layers"][layer]["shares"] == chosen[layer], (found["layers"][layer], chosen)
        near(found["layers"][layer]["aux"], 2 * 4 * sum(f * p for f, p in zip(chosen[layer], means[layer])), 1e-9)
    f, p = ([sum(pair) / 2 for pair in zip(*both)] for both in (chosen, means))
    near(found["aux"], 2 * 4 * sum(a * b for a, b in zip(f, p)), 1e-9)


def main():
    test_golden_models()
    with tempfile.TemporaryDirectory(prefix="perft_inspect_") as top:
        test_shards_and_tied(top)
        test_adapter(top)
        test_golden_adapters(top)
        test_router(top)
        test_pooled_loss(top)
    print("inspect: models, shards, adapters and routers are described as they are")


main()

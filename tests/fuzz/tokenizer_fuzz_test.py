"""Compares `perft tokenize` with the PyPI package `tokenizers` on generated strings and ids.

    tokenizer_fuzz_test.py [PERFT MODEL_DIR [MODEL_DIR...]] [--count N] [--seed S]

PERFT is the program, MODEL_DIR a folder with a tokenizer.json; without them (as ctest runs it) the program in PERFT_BINARY
and the tokenizers in PERFT_FIXTURES. Each model is also compared in variants that use parts of the format which its own
file does not, on a fifth of the strings each. Exits 0 if every id list and every decoded text is equal, 1 with the first
differences, 77 (skipped) where `tokenizers` cannot be imported.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile

try:
    from tokenizers import Tokenizer
except ImportError:
    print("skipped: the Python package 'tokenizers' is not installed")
    sys.exit(77)

WORDS = ("the of and question: answer The Response hello world don't we've I'LL 'tis it's they're l'été naïve Straße "
         "определённо 你好 世界 日本語 한국어 عربى עברית हिन्दी ไทย x+=1; http://a.b/c?d=e&f def return "
         "### Instruction: <|endoftext|> <s> </s> <unk> <0x0A> |||IP_ADDRESS||| <|padding|>").split()
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "’s", "'", "''", "'r", "'l", " 's", "'st"]
SPACES = [" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2009", "\u3000", "\u2028", "\u0085", "\u200b", "\x0b", "\x1c",
          "\u202f", "\u1680", "\u180e", "\ufeff"]
EMOJI = ["🙂", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "❤️", "1️⃣", "🧑‍🚀", "\u200d", "\ufe0f"]
MARKS = ["\u0301", "\u0308", "\u0323", "\u0327", "\u0345", "\u05b0", "\u0651", "\u093c", "\u09be", "\u0ddf", "\u3099",
         "\u1161", "\u11a8", "\u20dd", "\u0334", "\U0001d165", "\u0f71", "\u0338", "\u0898", "\u1dfa"]
BASES = list("aeiouAEIOUncsyzdlL") + ["\u0041\u030a", "\u212b", "\u2126", "\uac00", "\u1100", "\u0915", "\u0958",
                                      "\u304b", "\u0dd9", "\u09c7", "\u1e9b", "\ufb1d", "\U00011935", "<", "=", ">"]


def code_point(rng, low, high):
    while True:
        c = rng.randint(low, high)
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def piece(rng, added):
    kind = rng.randrange(17)
    if kind < 4:
        return rng.choice(WORDS) + " " * rng.randrange(2)
    if kind == 4:
        return rng.choice(CONTRACTIONS)
    if kind == 5:
        return rng.choice(SPACES) * rng.randint(1, 3)
    if kind == 6:
        return " " * rng.randint(1, 60)
    if kind == 7:
        return rng.choice(EMOJI)
    if kind == 8:
        return rng.choice(BASES) + "".join(rng.choice(MARKS) for _ in range(rng.randint(1, 4)))
    if kind == 9:
        return str(rng.randrange(10 ** rng.randint(1, 12))) + rng.choice(["", ".", ",", "½", "²", "٣", "Ⅷ"])
    if kind == 10:
        return rng.choice(added)
    if kind == 11:
        token = rng.choice(added)
        return token[:rng.randint(0, len(token))] + rng.choice(["", " ", "x"])
    if kind == 12:
        return code_point(rng, 0, 0x10FFFF)
    if kind == 13:
        return "".join(code_point(rng, 0, 0x2FFF) for _ in range(rng.randint(1, 4)))
    if kind == 14:
        block = rng.randrange(0, 0x33000, 0x80)
        return "".join(code_point(rng, block, block + 0x7F) if not 0xD780 <= block < 0xE000 else "?" for _ in range(3))
    if kind == 15:
        return "".join(chr(rng.randint(0, 0x7F)) for _ in range(rng.randint(1, 8)))
    return rng.choice(["▁", "▁▁", " ▁", "Ġ", "Ċ", "_", "\x00", "\ufffd"]) * rng.randint(1, 2)


def strings(rng, count, added):
    for _ in range(count):
        yield "".join(piece(rng, added) for _ in range(rng.choice((1, 2, 3, 5, 8, 20))))


def id_lists(rng, count, ids, byte_like):
    """Mostly tokens that hold pieces of characters, so that ill-formed UTF-8 is the rule."""
    for _ in range(count):
        yield [rng.choice(byte_like) if rng.random() < 0.7 else rng.choice(ids) for _ in range(rng.randint(0, 12))]


def run(perft, model, options, lines):
    with tempfile.TemporaryFile("w+", encoding="ascii") as source:
        source.writelines(json.dumps(line) + "\n" for line in lines)
        source.seek(0)
        done = subprocess.run([perft, "tokenize", "--model", model, *options], stdin=source, capture_output=True,
                              check=False)
    if done.returncode != 0:
        sys.exit(f"perft tokenize {options} failed on {model}: {done.stderr.decode()}")
    return [json.loads(line) for line in done.stdout.decode().split("\n")[:-1]]


def compare(what, inputs, expected, actual):
    if len(expected) != len(actual):
        sys.exit(f"{what}: {len(actual)} lines, expected {len(expected)}")
    wrong = [i for i in range(len(inputs)) if expected[i] != actual[i]]
    for i in wrong[:5]:
        print(f"{what}: input {inputs[i]!r}\n  expected {expected[i]!r}\n  actual   {actual[i]!r}")
    print(f"{what}: {len(inputs)} compared, {len(wrong)} different")
    return len(wrong)


def with_added(config):
    """More added tokens: alone as words, with their white space, normalised, not in normal form."""
    extra = [("the", "single_word"), ("<L>", "lstrip special"), ("<R>", "rstrip"), ("it's", "normalized single_word"),
             ("\u00e9", "normalized"), ("e\u0301x", ""), ("ne\u0301z", "normalized lstrip rstrip"),
             ("\u2603", "single_word lstrip rstrip"), ("?", "normalized single_word rstrip")]
    vocabulary = config["model"]["vocab"]
    free = max(max(vocabulary.values()), max(t["id"] for t in config["added_tokens"])) + 1
    for content, flags in extra:
        token = {"id": vocabulary.get(content, free), "content": content}
        free += content not in vocabulary
        for flag in ("single_word", "lstrip", "rstrip", "normalized", "special"):
            token[flag] = flag in flags.split()
        config["added_tokens"].append(token)


def variants(config):
    """(name, config) of files with other parts than `config` has."""
    byte_level = (config["pre_tokenizer"] or {}).get("type") == "ByteLevel"
    metaspace = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False}
    changes = [("added tokens", with_added), ("ignore_merges", lambda c: c["model"].update(ignore_merges=True)),
               ("no decoder", lambda c: c.update(decoder=None))]
    if byte_level:
        changes += [("prefix space", lambda c: c["pre_tokenizer"].update(add_prefix_space=True)),
                    ("no regex", lambda c: c["pre_tokenizer"].update(use_regex=False))]
    else:
        both = dict(metaspace, prepend_scheme="always", split=True)
        changes += [("Metaspace first", lambda c: (c.update(normalizer=None, pre_tokenizer=metaspace), with_added(c))),
                    ("Metaspace always", lambda c: c.update(normalizer=None, pre_tokenizer=both, decoder=both)),
                    ("no bytes", lambda c: c["model"].update(byte_fallback=False)),
                    ("few bytes", lambda c: (c["model"].update(fuse_unk=False), c["model"]["vocab"].pop("<0xC3>"))),
                    ("no unknown", lambda c: c["model"].update(byte_fallback=False, unk_token=None))]
    for name, change in changes:
        copy = json.loads(json.dumps(config))
        change(copy)
        yield name, copy


def check_variants(perft, model, count, seed):
    with open(os.path.join(model, "tokenizer.json"), encoding="utf-8") as file:
        config = json.load(file)
    wrong = 0
    for name, changed in variants(config):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, name)
            os.mkdir(path)
            with open(os.path.join(path, "tokenizer.json"), "w", encoding="ascii") as file:
                json.dump(changed, file)
            wrong += check_model(perft, path, count, seed)
    return wrong


def check_model(perft, model, count, seed):
    rng = random.Random(f"{seed} {os.path.basename(os.path.normpath(model))}")
    reference = Tokenizer.from_file(os.path.join(model, "tokenizer.json"))
    added = [token.content for token in reference.get_added_tokens_decoder().values()]
    texts = list(strings(rng, count, added))
    wrong = 0
    for options, special in (([], True), (["--no-special-tokens"], False)):
        share = texts if special else texts[:count // 4]
        expected = [e.ids for e in reference.encode_batch(share, add_special_tokens=special)]
        wrong += compare(f"{model} encode {options}", share, expected, run(perft, model, options, share))

    vocabulary = reference.get_vocab()
    ids = sorted(vocabulary.values())
    byte_like = [i for token, i in vocabulary.items()
                 if token.startswith("<0x") or (len(token) <= 3 and any(0x80 <= ord(c) < 0x180 for c in token))]
    lists = list(id_lists(rng, count // 2, ids, sorted(byte_like)))
    for options, skip in (([], True), (["--keep-special-tokens"], False)):
        expected = reference.decode_batch(lists, skip_special_tokens=skip)
        wrong += compare(f"{model} decode {options}", lists, expected, run(perft, model, ["--decode", *options], lists))
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("perft", nargs="?")
    parser.add_argument("models", nargs="*")
    parser.add_argument("--count", type=int, help="strings for each model (20000; 4000 without PERFT)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.count is None:
        options.count = 20000 if options.perft else 4000
    if not options.perft:
        options.perft = os.environ["PERFT_BINARY"]
        folder = os.path.join(os.environ["PERFT_FIXTURES"], "tokenizers")
        options.models = [os.path.join(folder, name) for name in ("olmoe", "mixtral")]
    wrong = 0
    for model in options.models:
        wrong += check_model(options.perft, model, options.count, options.seed)
        wrong += check_variants(options.perft, model, options.count // 5, options.seed)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

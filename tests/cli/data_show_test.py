#!/usr/bin/env python3
"""perft data: rows as finetune's tokens, labels and boundaries, and the counts of its report, each from its definition.

Environment: PERFT_BINARY (make_checkpoint is looked for beside it), PERFT_FIXTURES.
"""
import json
import os
import pty
import subprocess
import tempfile

from bad_files import CONFIG

BINARY = os.environ["PERFT_BINARY"]
MAKE_CHECKPOINT = os.path.join(os.path.dirname(BINARY), "make_checkpoint")
TOKENIZERS = os.path.join(os.environ["PERFT_FIXTURES"], "tokenizers")
EOS = {"olmoe": 50279, "mixtral": 2}
PROMPT = ("Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
          "### Instruction:\n{}\n\n### Response:\n")

folder = tempfile.TemporaryDirectory(prefix="perft-data-")


def path(name, content=None):
    full = os.path.join(folder.name, name)
    if content is not None:
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as file:
            file.write(content if isinstance(content, str) else json.dumps(content))
    return full


def model(family):
    """A folder with a tokenizer and a configuration: no weights are needed."""
    with open(os.path.join(TOKENIZERS, family, "tokenizer.json"), encoding="utf-8") as file:
        path(f"{family}/tokenizer.json", file.read())
    path(f"{family}/config.json", {**CONFIG, "vocab_size": 50304, "eos_token_id": EOS[family]})
    return path(family)


def perft(*arguments, **options):
    done = subprocess.run([BINARY, *arguments], capture_output=True, text=True, check=False, timeout=120, **options)
    assert done.returncode == 0 and done.stderr == "", (arguments, done.returncode, done.stderr)
    return done.stdout


def show(family, rows, *options):
    return json.loads(perft("data", "show", "--model", model(family), "--data", rows, "--json", *options).splitlines()[-1])


def report(family, rows, *options):
    return json.loads(perft("data", "report", "--model", model(family), "--data", rows, "--json", *options).splitlines()[-1])


def ids_of(family, text):
    return json.loads(perft("tokenize", "--model", model(family), input=json.dumps(text) + "\n"))


def row(instruction, output, **more):
    return {"instruction": instruction, "output": output, **more}


def test_tokens_and_labels():
    rows = [row("Add 2 and 3.", "It is 5."), row("Naïve 🦜 and 中文?", "Oui | non [x]"), row("Say it.", "Line one\nline two")]
    data = path("rows.json", rows)
    for family in EOS:
        shown = show(family, data)
        assert shown["count"] == 3 and [r["row"] for r in shown["rows"]] == [0, 1, 2], shown
        masked = show(family, data, "--train-on-inputs", "false")["rows"]
        for source, r, m in zip(rows, shown["rows"], masked):
            text = PROMPT.format(source["instruction"]) + source["output"]
            assert r["ids"] == ids_of(family, text) + [EOS[family]] == m["ids"], (family, r["ids"])
            assert r["labels"] == r["ids"] and r["eos"] and not r["truncated"], r
            assert r["where"] == f"{data}: row {r['row'] + 1}" and r["part"] is None, r  # 3 rows are fewer than --val-size
            assert text in "".join(r["tokens"]) and len(r["tokens"]) == len(r["ids"]), r["tokens"]
            prompt = len(ids_of(family, PROMPT.format(source["instruction"])))
            assert r["prompt_tokens"] == m["prompt_tokens"] == prompt, (r["prompt_tokens"], prompt)
            assert m["labels"] == [-100] * prompt + m["ids"][prompt:], m
            assert r["trained_tokens"] == len(r["ids"]) - 1 and m["trained_tokens"] == len(m["ids"]) - prompt, (r, m)


def test_cutoff_and_seam():
    form = path("form.json", {"train": {"with_input": "{instruction}{input}{output}", "without_input": "{instruction}{output}"}})
    data = path("seam.jsonl", json.dumps(row("hel", "lo")) + "\n\n" + json.dumps(row("hello.", " world and more")) + "\n")
    joined, apart = show("olmoe", data, "--prompt", form)["rows"]
    assert joined["seam_differs"] and not apart["seam_differs"], (joined, apart)
    assert joined["where"].endswith("line 1") and apart["where"].endswith("line 3"), (joined["where"], apart["where"])
    (cut,) = show("olmoe", data, "--prompt", form, "--rows", "1", "--cutoff", "4")["rows"]
    assert cut["truncated"] and not cut["eos"] and cut["ids"] == apart["ids"][:4], cut
    text = perft("data", "show", "--model", model("olmoe"), "--data", data, "--prompt", form, "--rows", "1", "--cutoff", "4")
    assert text == f"row 1 ({data}: line 3): 4 tokens, 3 trained; prompt 2 tokens; cut at 4; no EOS\n[hello]|.| world| and|\n", text
    text = perft("data", "show", "--model", model("olmoe"), "--data", data, "--prompt", form, "--train-on-inputs", "false", "--rows", "1,0")
    assert text.splitlines()[1] == "[hello][.]| world| and| more|<\\|endoftext\\|>|", text
    assert text.splitlines()[3].endswith("the prompt's last tokens change when the output follows"), text


def test_nothing_reaches_the_terminal_unescaped():
    data = path("hostile.json", [row("a\x1b[31mb\x07\u009b\u202e|[c]\\ \t🦜\u200b", "d\r\n\x7f")])
    for family in EOS:
        arguments = ["data", "show", "--model", model(family), "--data", data]
        text = perft(*arguments)
        assert not [c for c in text if c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u202e\u200b")], repr(text)
        assert "‹" in text, text  # the parrot's bytes are tokens of their own
        for spelled in ("\\u{1b}", "\\u{7}", "\\u{9b}", "\\u{202e}", "\\|", "\\[", "\\]", "\\t", "\\u{d}", "\\u{7f}"):
            assert spelled in text, (family, spelled, text)
        for environment, colours in (({}, True), ({"NO_COLOR": "1"}, False)):
            ours, theirs = pty.openpty()
            variables = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | environment
            subprocess.run([BINARY, *arguments], stdout=theirs, check=True, env=variables)
            os.close(theirs)
            drawn = b""
            while True:
                try:
                    part = os.read(ours, 65536)
                except OSError:  # all of it was read
                    break
                if not part:
                    break
                drawn += part
            os.close(ours)
            assert (b"\x1b[32m" in drawn) == colours and b"\x1b[31m" not in drawn, (colours, drawn)


def test_split_and_numbers():
    data = path("many.json", [row(f"Number {i}.", f"{i} it is.") for i in range(30)])
    rows = show("olmoe", data, "--rows", "0-29", "--val-size", "8")["rows"]
    held_back = [r["row"] for r in rows if r["part"] == "validation"]
    train = [r["row"] for r in rows if r["part"] == "train"]
    assert len(held_back) == 8 and len(train) == 22, (held_back, train)
    assert [r["row"] for r in show("olmoe", data, "--split", "validation", "--val-size", "8", "--rows", "7,0-2")["rows"]] == [
        held_back[7], *held_back[:3]]
    assert [r["row"] for r in show("olmoe", data, "--split", "train", "--val-size", "8")["rows"]] == train[:3]
    other = [r["row"] for r in show("olmoe", data, "--split", "validation", "--val-size", "8", "--seed", "7", "--rows", "0-7")["rows"]]
    assert other != held_back, other


def test_report_by_hand():
    first = [row("a", "x"), row("b", "x"), row("a", "x"), row("a", "y"), row("c", "z" + " long" * 60)]
    second = [row("a", "x"), row("b", "", input="")]
    files = path("first.json", first) + "," + path("second.json", second)
    found = report("olmoe", files, "--val-size", "0", "--cutoff", "64")
    assert found["rows"] == found["train"] == 7 and found["validation"] == 0, found
    assert [f["rows"] for f in found["files"]] == [5, 2] and found["files"][0]["file"] == path("first.json"), found
    assert found["truncated"] == found["without_eos"] == 1 and found["longest"] == 64, found
    assert found["repeated"] == 2 and found["held_back_known"] == found["held_back_asked"] == 0, found
    rows = show("olmoe", files, "--rows", "0-6", "--val-size", "3", "--cutoff", "64")["rows"]
    assert found["tokens"] == sum(len(r["ids"]) for r in rows) == found["trained_tokens"] + 7, found
    seen = set()
    for seed in range(12):  # the split decides which rows are known
        options = ("--val-size", "3", "--cutoff", "64", "--seed", str(seed))
        found = report("olmoe", files, *options)
        rows = show("olmoe", files, "--rows", "0-6", *options)["rows"]
        both = [(s, r) for s, r in zip(first + second, rows)]
        trained = [r["ids"] for _, r in both if r["part"] == "train"]
        prompts = {s["instruction"] for s, r in both if r["part"] == "train"}
        known = [r for _, r in both if r["part"] == "validation" and r["ids"] in trained]
        asked = [r for s, r in both if r["part"] == "validation" and r["ids"] not in trained and s["instruction"] in prompts]
        expected = (sum(i in trained[:at] for at, i in enumerate(trained)), len(known), len(asked))
        assert (found["repeated"], found["held_back_known"], found["held_back_asked"]) == expected, (seed, found, expected)
        seen.add(expected)
    assert len(seen) > 2 and any(e[1] for e in seen) and any(e[2] for e in seen), seen
    found = report("olmoe", path("form.jsonl", json.dumps(row("hel", "lo")) + "\n" + json.dumps(row("a.", " b"))), "--prompt",
                   path("form.json"), "--val-size", "0", "--train-on-inputs", "false")
    assert found["seam_differs"] == 1 and found["trained_share"] == found["trained_tokens"] / found["tokens"], found


def test_finetune_prints_the_report():
    checkpoint = path("checkpoint")
    subprocess.run([MAKE_CHECKPOINT, "--out", checkpoint, "--tokenizer", os.path.join(TOKENIZERS, "olmoe", "tokenizer.json"), "--hidden", "16",
                    "--layers", "1", "--heads", "2", "--experts", "4", "--top-k", "2", "--inner", "8"], check=True, stdout=subprocess.DEVNULL)
    files = path("first.json", [row("a", "x")] * 4 + [row("a", "y")]) + "," + path("second.json", [row("b", "x")] * 5)
    common = ["--model", checkpoint, "--data", files, "--val-size", "4", "--seed", "1"]
    table = perft("data", "report", *common)
    printed = perft("finetune", *common, "--out", path("run"), "--method", "perft-s", "--max-steps", "1", "--batch-size", "1", "--dtype", "f32")
    assert table in printed, (table, printed)
    lines = table.splitlines()
    assert lines[0] == "rows                           10   (6 to train, 4 held back)", table
    assert lines[1] == f"                                5   from {path('first.json')}", table
    assert [line for line in lines if line.startswith("repeated rows ")], table
    assert [line for line in lines if line.startswith("held back, known ") and "of the 4 held back" in line], table
    clean = perft("data", "report", "--model", checkpoint, "--data", path("one.json", [row("a", "x"), row("b", "y")]), "--val-size", "1")
    assert "repeated" not in clean and "known" not in clean and "asked" not in clean and "from" not in clean, clean


with folder:
    test_tokens_and_labels()
    test_cutoff_and_seam()
    test_nothing_reaches_the_terminal_unescaped()
    test_split_and_numbers()
    test_report_by_hand()
    test_finetune_prints_the_report()
print("data: rows are shown as they are trained, and counted as they are")

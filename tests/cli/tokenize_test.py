#!/usr/bin/env python3
"""perft tokenize: the golden rows of both tokenizers both ways, what stays printed before a bad line, answers while input is still
to come, and speed."""

import json
import os
import resource
import select
import subprocess
import sys

PERFT = os.environ["PERFT_BINARY"]
TOKENIZERS = os.path.join(os.environ["PERFT_FIXTURES"], "tokenizers")
FAMILIES = ("olmoe", "mixtral")
LEAST_MEGABYTES_PER_SECOND = 5


def tokenize(family, lines, *options, code=0):
    """The lines that `perft tokenize` prints for the given lines (bytes without line breaks)."""
    command = [PERFT, "tokenize", "--model", f"{TOKENIZERS}/{family}", *options]
    done = subprocess.run(command, input=b"".join(line + b"\n" for line in lines), capture_output=True, check=False, timeout=120)
    assert done.returncode == code, (command, done.returncode, done.stderr)
    return done.stdout.decode().splitlines(), done.stderr.decode()


def rows(family):
    with open(f"{TOKENIZERS}/{family}/golden.json", encoding="utf-8") as file:
        return json.load(file)


def lines_of(values, ascii_only=True):
    return [json.dumps(value, ensure_ascii=ascii_only).encode() for value in values]


def test_golden():
    for family in FAMILIES:
        golden = rows(family)
        assert len(golden) >= 100, (family, len(golden))
        for ascii_only in (True, False):  # "\u00e9" and "é" are the same text
            texts = lines_of((row["text"] for row in golden), ascii_only)
            for option, key in (([], "ids"), (["--no-special-tokens"], "ids_no_special")):
                found, _ = tokenize(family, texts, *option)
                assert len(found) == len(golden), family
                for row, line in zip(golden, found):
                    assert json.loads(line) == row[key], (family, row["text"], line)
        found, _ = tokenize(family, lines_of(row["ids"] for row in golden), "--decode")
        assert len(found) == len(golden), family
        for row, line in zip(golden, found):
            assert json.loads(line) == row["decoded"], (family, row["ids"], line)


def test_special_tokens():
    """--decode leaves out what the post-processor adds; --keep-special-tokens does not."""
    ids = rows("mixtral")[5]["ids"]
    assert ids[0] == 1
    (left_out, kept), _ = tokenize("mixtral", lines_of([ids, ids]), "--decode")
    assert left_out == kept and "<s>" not in left_out
    (kept,), _ = tokenize("mixtral", lines_of([ids]), "--decode", "--keep-special-tokens")
    assert json.loads(kept).startswith("<s>"), kept
    end = 50279  # OLMoE's <|endoftext|>, recognised in a text with and without special tokens
    for options in ([], ["--no-special-tokens"]):
        (line,), _ = tokenize("olmoe", [b'"a<|endoftext|>b"'], *options)
        assert json.loads(line)[1] == end, line


def test_bad_lines():
    """The lines before a bad one stay printed, whole; none after it is."""
    good = lines_of(["yes", "déjà", "no"])
    expected, _ = tokenize("olmoe", good)
    for bad, why in ((b'"open', "not valid JSON"), (b"4", "expected a JSON string, got number"), (b'"\xff"', "not valid JSON"),
                     (b"", "not valid JSON")):
        found, stderr = tokenize("olmoe", [*good, bad, *good], code=1)
        assert found == expected, (bad, found)
        assert stderr.startswith("perft: error: stdin:4: ") and why in stderr and stderr.count("\n") == 1, stderr
    ids = lines_of([[1], [2, 3], [99999]])
    found, stderr = tokenize("olmoe", ids, "--decode", code=1)
    assert found == tokenize("olmoe", ids[:2], "--decode")[0] and stderr.startswith("perft: error: stdin:3: "), stderr
    last = subprocess.run([PERFT, "tokenize", "--model", f"{TOKENIZERS}/olmoe"], input=b'"yes"\n"no"', capture_output=True, check=True)
    assert len(last.stdout.splitlines()) == 2, "the last line needs no line break"
    assert tokenize("olmoe", []) == ([], "")


def test_dialogue():
    """An answer comes before the next question is asked."""
    command = [PERFT, "tokenize", "--model", f"{TOKENIZERS}/olmoe"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        for word in ("one", "two"):
            process.stdin.write(json.dumps(word).encode() + b"\n")
            process.stdin.flush()
            if not select.select([process.stdout], [], [], 60)[0]:
                process.kill()
                raise AssertionError("no answer while input is still to come")
            assert isinstance(json.loads(process.stdout.readline())[0], int)
        process.stdin.close()
        assert process.wait(timeout=60) == 0


def test_odd_bytes():
    """Every id alone: --decode prints valid UTF-8 also for half a character (readable as JSON), byte for byte as the golden has it."""
    for family, size in (("olmoe", 50280), ("mixtral", 32000)):
        found, _ = tokenize(family, [b"[%d]" % i for i in range(size)], "--decode", "--keep-special-tokens")
        assert len(found) == size
        assert all(line.isascii() and isinstance(json.loads(line), str) for line in found), family
        halves = sum("\ufffd" in json.loads(line) for line in found)
        assert halves > 100, (family, halves)


def cpu_seconds(command, data):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, input=data, stdout=subprocess.DEVNULL, check=True, timeout=300)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_broken_streams():
    """A full disk, a reader that went away and a stdin that cannot be read are one line and exit code 1, at once."""
    command = [PERFT, "tokenize", "--model", os.path.join(TOKENIZERS, "olmoe")]
    for out in ("/dev/full", "closed pipe"):
        endless = subprocess.Popen(["yes", '"ok"'], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        read, write = os.pipe()
        os.close(read)
        sink = os.open("/dev/full", os.O_WRONLY) if out == "/dev/full" else write
        done = subprocess.run(command, stdin=endless.stdout, stdout=sink, stderr=subprocess.PIPE, text=True, timeout=60)
        endless.kill()
        assert (done.returncode, done.stderr) == (1, "perft: error: stdout: cannot write all results; check the disk or the "
                                                  "reading program\n"), (out, done)
    with subprocess.Popen(command, stdin=os.open("/", os.O_RDONLY), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as folder:
        out, err = folder.communicate(timeout=60)
    assert (folder.returncode, out, err) == (1, "", "perft: error: stdin: cannot be read; expected lines of JSON\n"), (out, err)


def corpus():
    """16 MB of question-answer rows, no two the same, as lines."""
    data = os.path.join(os.environ["PERFT_FIXTURES"], "..", "..", "demo", "data")
    texts = []
    for name in ("boolq", "openbookqa", "ARC-Easy", "ARC-Challenge"):
        with open(os.path.join(data, f"{name}.json"), encoding="utf-8") as file:
            texts += [row["instruction"] + "\n" + row["output"] for row in json.load(file)]
    lines, total = [], 0
    while total < 16_000_000:
        words = texts[len(lines) % len(texts)].split(" ")
        turn = len(lines) // len(texts) % max(1, len(words))
        text = " ".join(words[turn:] + words[:turn])
        lines.append(json.dumps(text).encode())
        total += len(text.encode())
    return b"\n".join(lines) + b"\n", total


def test_speed():
    """Processor time, less that of loading, so that a busy machine changes little; the best of three. Text is what counts, not its JSON."""
    if os.environ.get("PERFT_BUILD_TYPE") != "Release":
        return "not measured in a build that is not optimised"
    data, size = corpus()
    rates = []
    for family in FAMILIES:
        command = [PERFT, "tokenize", "--model", f"{TOKENIZERS}/{family}"]
        loading = min(cpu_seconds(command, b"") for _ in range(2))
        rate = 0.0
        for _ in range(3):
            rate = max(rate, size / 1e6 / max(1e-3, cpu_seconds(command, data) - loading))
            if rate >= 2 * LEAST_MEGABYTES_PER_SECOND:
                break
        assert rate >= LEAST_MEGABYTES_PER_SECOND, f"{family}: {rate:.2f} MB/s, expected at least {LEAST_MEGABYTES_PER_SECOND}"
        rates.append(f"{family} {rate:.1f} MB/s")
    return ", ".join(rates)


def main():
    test_golden()
    test_special_tokens()
    test_bad_lines()
    test_broken_streams()
    test_dialogue()
    test_odd_bytes()
    print("tokenize: golden rows both ways;", test_speed())


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Runs every row of bad_input.tsv and compares exit code and stderr to the byte.

usage: run_bad_input.py --perft BINARY [--only NAME] [--show]

A row is: name, exit code, stderr, command line (without `perft`), with tabs between; lines starting with # are comments.
stderr is one line without its line break, empty for a row that must succeed silently. In stderr and command line,
  {file:NAME}    the path of a broken or small file that the function called NAME in FILES (here or in bad_files.py) writes
  {folder:NAME}  the path of a model or adapter folder whose files the function called NAME in bad_files.py's FOLDERS gives
  {tmp}          the row's own folder, empty but for those; commands run in it
  {fixtures}     tests/fixtures
`< PATH` at the end of a command line is its standard input (otherwise empty).

Besides exit code and stderr a failing row must leave nothing in its folder, and nothing on stdout if it was wrong usage
or had --json. To add a row for a new kind of broken file, add a function to FILES or FOLDERS. --show prints what each command does
in the form of a row, to be read and pasted.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile

from bad_files import FILES, FOLDERS

HERE = os.path.dirname(os.path.abspath(__file__))
TIMEOUT_SECONDS = 60  # a bad input is refused in milliseconds; sanitizer builds are slow to start


def file(name):
    """Registers a function that returns the bytes of the file `name`."""

    def register(function):
        if name in FILES:
            raise SystemExit(f"run_bad_input.py: two functions write {name}")
        FILES[name] = function
        return function

    return register


def text_file(name, text):
    file(name)(lambda: text.encode())


FINETUNE = 'model = "m"\ndata = ["d.json"]\nout = "o"\n'
text_file("good.toml", FINETUNE + 'method = "perft-r"\nexperts = 8\ntop_k = 4\nlr = 1\ntrain-on-inputs = false\n')
text_file("good.json", '{"model": "m", "data": "d.json", "out": "o", "method": "lora", "lora-targets": ["gate"], "lr": 1e-4}')
text_file("rank0.toml", FINETUNE + 'method = "perft-s"\nrank = 0\n')
text_file("type.toml", FINETUNE + 'method = "perft-s"\nbatch-size = "16"\n')
text_file("nan.toml", FINETUNE + 'method = "perft-s"\nlr = nan\n')
text_file("unknown.toml", FINETUNE + 'method = "perft-s"\nbatchsize = 16\n')
text_file("twice.toml", FINETUNE + 'method = "perft-s"\nbatch-size = 16\nbatch_size = 8\n')
text_file("table.toml", FINETUNE + 'method = "perft-s"\n[seed]\nvalue = 4\n')
text_file("nested.toml", 'config = "other.toml"\n')
text_file("syntax.toml", 'model = "m"\nrank = \n')
text_file("rank.toml", "rank = 4\n")
text_file("choice.toml", 'method = "perft-x"\n')
text_file("empty.toml", "")
text_file("type.json", '{"rank": 4.5}')
text_file("flag.json", '{"resume": "yes"}')
text_file("null.json", '{"rank": null}')
text_file("list.json", '{"data": ["a.json", 3]}')
text_file("array.json", "[]")
text_file("syntax.json", '{"rank": 4')
text_file("grid-none.toml", "[options]\nrank = 4\n")
text_file("grid-empty.json", '{"grid": {}}')
text_file("grid-no-value.toml", "[grid]\nrank = []\n")
text_file("grid-key.toml", "[grid]\nranks = [1, 2]\n")
text_file("grid-out.toml", '[options]\nout = "o"\n[grid]\nrank = [1, 2]\n')
text_file("grid-both.toml", '[options]\nrank = 4\n[[grid]]\nmethod = "perft-s"\n[[grid]]\nmethod = "perft-s"\nrank = [1, 2]\n')
text_file("grid-range.toml", '[grid]\nmethod = "perft-s"\nrank = [0, 2]\n')
text_file("grid-range-right.toml", '[grid]\nmethod = "perft-s"\nrank = [1, 2]\n')
text_file("grid-nested.toml", "[grid]\nrank = [[1, 2]]\n")
text_file("grid-twice.toml", "[grid]\ntop-k = [1]\ntop_k = [2]\n")
text_file("grid-refused.toml", FINETUNE.replace('model', '[options]\nmodel').replace('out = "o"\n', '')
          + '[grid]\nmethod = "perft-r"\nexperts = 2\ntop-k = 4\n')
text_file("grid-large.json", '{"grid": {"seed": [' + ", ".join(map(str, range(200))) + '], "lr": [' + ", ".join(["1e-3"] * 200) + "]}}")
text_file("twice.json", '{"rank": 4, "rank": 8}')


def rows(path):
    """Yields (line number, name, exit code, stderr, command line)."""
    names = set()
    with open(path, encoding="utf-8") as table:
        for number, line in enumerate(table, 1):
            line = line.rstrip("\n")
            if not line or line.startswith("#"):
                continue
            fields = line.split("\t")
            if len(fields) != 4 or not fields[1].isdigit():
                raise SystemExit(f"{path}: line {number}: expected name, exit code, stderr and command line with tabs between")
            if fields[0] in names:
                raise SystemExit(f"{path}: line {number}: a second row called {fields[0]}")
            names.add(fields[0])
            yield number, fields[0], int(fields[1]), fields[2], fields[3]


def fill(text, folder):
    """Replaces the placeholders and writes the files they name."""

    def replace(match):
        kind, name = match.group(1), match.group(3)
        if kind == "tmp":
            return folder
        if kind == "fixtures":
            return os.path.join(os.path.dirname(HERE), "fixtures")
        if name not in (FOLDERS if kind == "folder" else FILES):
            raise SystemExit(f"run_bad_input.py: nothing writes the {kind} {name}")
        path = os.path.join(folder, name)
        if not os.path.exists(path):
            if kind == "folder":
                os.mkdir(path)
                for inner, content in FOLDERS[name]().items():
                    write(os.path.join(path, inner), content)
            else:
                write(path, FILES[name]())
        return path

    return re.sub(r"\{(tmp|fixtures|file|folder)(:([^{}]+))?\}", replace, text)


def write(path, content):
    with open(path, "wb") as out:
        out.write(content)


def tree(folder):
    """Everything in `folder`, as paths from it."""
    return {os.path.relpath(os.path.join(top, name), folder) for top, folders, files in os.walk(folder)
            for name in folders + files}


def run(perft, command, expected, folder):
    """Runs one command; returns its result, the expected stderr, and what it left behind."""
    arguments = shlex.split(fill(command, folder))
    expected = fill(expected, folder)
    source = subprocess.DEVNULL
    if len(arguments) >= 2 and arguments[-2] == "<":
        source = open(arguments[-1], "rb")
        arguments = arguments[:-2]
    before = tree(folder)
    result = subprocess.run([perft, *arguments], cwd=folder, stdin=source, capture_output=True, timeout=TIMEOUT_SECONDS,
                            check=False)
    if source is not subprocess.DEVNULL:
        source.close()
    return result, expected, sorted(tree(folder) - before), arguments


def problems(code, result, expected, left, arguments):
    stderr = result.stderr.decode(errors="replace")
    if result.returncode != code:
        yield f"exit code {result.returncode}, expected {code}"
    if stderr != (expected + "\n" if expected else ""):
        yield f"stderr is\n      {stderr!r}, expected\n      {expected + chr(10)!r}"
    if code != 0 and left:
        yield f"left behind: {', '.join(left)}"
    if result.stdout and (code == 2 or (code == 1 and "--json" in arguments)):
        yield f"stdout is {result.stdout[:80]!r}, expected nothing"
    if code != 0 and not expected.startswith("perft: error: "):
        yield "the row's stderr does not start with 'perft: error: '"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--perft", required=True)
    parser.add_argument("--table", default=os.path.join(HERE, "bad_input.tsv"))
    parser.add_argument("--only")
    parser.add_argument("--show", action="store_true")
    options = parser.parse_args()
    perft = os.path.abspath(options.perft)
    count = failed = 0
    for number, name, code, expected, command in rows(options.table):
        if options.only not in (None, name):
            continue
        count += 1
        with tempfile.TemporaryDirectory(prefix="perft_bad_input_") as folder:
            result, stderr, left, arguments = run(perft, command, expected, folder)
            if options.show:
                shown = result.stderr.decode(errors="replace").rstrip("\n")
                for kind, names in (("folder", FOLDERS), ("file", FILES)):
                    for path in names:  # a whole component: one name may begin another
                        found = re.escape(os.path.join(folder, path)) + r"(?![\w.-])"
                        shown = re.sub(found, "{" + kind + ":" + path + "}", shown)
                shown = shown.replace(folder, "{tmp}").replace(os.path.join(os.path.dirname(HERE), "fixtures"), "{fixtures}")
                print(name, result.returncode, shown, command, sep="\t")
                continue
            wrong = list(problems(code, result, stderr, left, arguments))
        if wrong:
            failed += 1
            print(f"{os.path.basename(options.table)}:{number}: {name}: perft {command}")
            for problem in wrong:
                print(f"   {problem}")
    if count == 0:
        raise SystemExit("run_bad_input.py: no row was run")
    if not options.show:
        print(f"{count} bad inputs, {failed} not refused as they should be")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Checks the text of every file of the repository: header length, open ends, empty checks, paths of one machine.

usage: check_text.py [TREE]
"""

import os
import pathlib
import re
import subprocess

import tree

MAX_HEADER_LINES = 500
# Written in pieces so that this file does not find itself.
RULES = [
    (r".*\.(hpp|cpp|cuh|cu|py|sh|cmake|txt)", r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b", "an open end; finish it or file an issue"),
    (r".*\.(hpp|cpp)", r"\b(CHECK|REQ" r"UIRE)\((true|1)\)", "a check that cannot fail"),
    (r".*", r"(?<![\w.])/(wo" r"rk|fa" r"rm|ho" r"me|ro" r"ot)/", "a path of one machine"),
]
BINARY = re.compile(r".*\.(safetensors|bin|png|gz|json|jsonl|tsv)")


# Where git is not there to ask: what .gitignore leaves out, and git's own folder.
IGNORED = {".git", "build", "__pycache__", ".cache"}


def files(top):
    """Every file that is, or would be, in the repository."""
    git = ["git", "-C", str(top), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(git, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        names = [name for name in listed.stdout.split("\0") if name]
    else:
        names = []
        for folder, inner, found in os.walk(top):
            inner[:] = [name for name in inner if name not in IGNORED]
            names += [pathlib.Path(folder, name).relative_to(top).as_posix() for name in found]
    return sorted(name for name in names if (top / name).is_file())


def check_file(top, name):
    """Findings of one file."""
    lines = (top / name).read_text(encoding="utf-8", errors="replace").splitlines()
    if re.fullmatch(r".*\.(hpp|cuh)", name) and len(lines) > MAX_HEADER_LINES:
        yield f"{name}: {len(lines)} lines; a header over {MAX_HEADER_LINES} is split"
    rules = [(re.compile(pattern), why) for which, pattern, why in RULES if re.fullmatch(which, name)]
    for number, line in enumerate(lines, 1):
        for pattern, why in rules:
            if pattern.search(line):
                yield f"{name}:{number}: {why}: {line.strip()[:80]}"


def main():
    top = tree.root()
    names = [name for name in files(top) if not BINARY.fullmatch(name)]
    findings = [finding for name in names for finding in check_file(top, name)]
    tree.report(findings, f"{len(names)} files, no header over {MAX_HEADER_LINES} lines, nothing left open")


if __name__ == "__main__":
    main()

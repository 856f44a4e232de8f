#!/usr/bin/env python3
"""perft --help and --version: the commands and options of docs/cli.md, all of them and no other."""

import os
import re
import subprocess

PERFT = os.environ["PERFT_BINARY"]
ROOT = os.path.join(os.environ["PERFT_FIXTURES"], "..", "..")
RUNS_A_MODEL = {"--dtype", "--device", "--threads", "--json"}
EVERY_COMMAND = {"--help", "--config"}
WITHOUT_MODEL = {"tokenize": set(), "data": {"--json"}}  # of RUNS_A_MODEL, what commands that run none have


def text(*arguments):
    done = subprocess.run([PERFT, *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0 and done.stderr == "", (arguments, done.returncode, done.stderr)
    assert done.stdout.endswith("\n"), arguments
    return done.stdout


def documented():
    """{command: options of its synopsis} as docs/cli.md has them."""
    with open(os.path.join(ROOT, "docs", "cli.md"), encoding="utf-8") as file:
        page = file.read()
    commands = re.findall(r"^\| \[`([a-z]+)`\]", page, re.MULTILINE)
    synopses = "\n".join(re.findall(r"^```\n(perft .*?)^```", page, re.MULTILINE | re.DOTALL))
    found = {command: set() for command in commands}
    command = None
    for line in synopses.splitlines():
        if line.startswith("perft "):
            command = line.split()[1]
        found[command] |= set(re.findall(r"--[a-z][a-z-]*", line))
    return found


def listed(help_text):
    """Names at the start of a line of the help text."""
    return set(re.findall(r"^  (--[a-z][a-z-]*)", help_text, re.MULTILINE))


def test_commands():
    whole = text("--help")
    commands = documented()
    assert len(commands) >= 4 and all(commands.values()), commands
    shown = re.findall(r"^  ([a-z]+) ", whole.split("Commands:\n")[1], re.MULTILINE)
    assert shown == list(commands), (shown, list(commands))
    assert listed(whole) == {"--help", "--version"}, whole
    for command, options in commands.items():
        page = text(command, "--help")
        expected = options | EVERY_COMMAND | WITHOUT_MODEL.get(command, RUNS_A_MODEL)
        assert listed(page) == expected, (command, sorted(listed(page) ^ expected))
        lines = page.splitlines()
        for line, after in zip(lines, lines[1:]):  # each has its explanation: beside it or, if it is long, below
            beside = re.match(r"  --[a-z-]+( \S+)? {2,}\S", line)
            assert not line.startswith("  --") or beside or re.match(r" {32}\S", after), (command, line)


def test_version():
    with open(os.path.join(ROOT, "include", "perft", "core", "config.hpp"), encoding="utf-8") as file:
        version = re.search(r'#define PERFT_VERSION "([0-9.]+)"', file.read()).group(1)
    assert text("--version") == f"perft {version}\n"


test_commands()
test_version()
print("help: every option of docs/cli.md is listed, and no other")

#!/usr/bin/env python3
"""Checks that include/perft/perft.hpp lists every header, or writes it.

usage: umbrella.py [--write] [TREE]
"""

import sys

import tree

HEAD = """#pragma once
// Everything in perft. Headers that need nlohmann-json or utf8proc are left out where those are not installed; link
// perft::io or perft::text to have them. Written by tools/umbrella.py --write.

"""
# Condition of a header that reaches an outside include, and how that include begins.
GUARDS = [
    ("__has_include(<nlohmann/json.hpp>)", "nlohmann/"),
    ("__has_include(<utf8proc.h>)", "utf8proc.h"),
    ("defined(PERFT_ONEDNN) && PERFT_ONEDNN", "oneapi/"),
]
ONEDNN = 2  # its includers switch themselves, so the guard is for the one header alone


def needs(top, header, seen):
    """The outside headers that `header` reaches, as indices into GUARDS."""
    if header in seen:
        return set()
    seen.add(header)
    found = set()
    path = top / "include" / header
    if not path.is_file():
        return found
    for _, kind, name in tree.includes(path):
        if kind == '"':
            found |= needs(top, name, seen) - {ONEDNN}
        else:
            found |= {i for i, (_, prefix) in enumerate(GUARDS) if name.startswith(prefix)}
    return found


def umbrella(top):
    """The umbrella's text: plain headers, then one guarded block per set of outside headers."""
    blocks = {}
    for header in tree.headers(top):
        blocks.setdefault(tuple(sorted(needs(top, header, set()))), []).append(header)
    text = HEAD
    for key in sorted(blocks):
        lines = "".join(f'#include "{header}"\n' for header in blocks[key])
        if key:
            condition = " && ".join(GUARDS[i][0] for i in key)
            lines = f"\n#if {condition}\n{lines}#endif\n"
        text += lines
    return text


def main():
    top = tree.root()
    path = top / "include" / "perft" / "perft.hpp"
    if "--write" in sys.argv:
        path.write_text(umbrella(top), encoding="utf-8")
    listed = path.read_text(encoding="utf-8") if path.is_file() else ""
    wanted = umbrella(top)
    findings = [f"include/perft/perft.hpp: lacks {line}" for line in wanted.splitlines() if line not in listed.splitlines()]
    findings += [f"include/perft/perft.hpp: has {line}" for line in listed.splitlines() if line not in wanted.splitlines()]
    if not findings and listed != wanted:
        findings = ["include/perft/perft.hpp: right lines in the wrong places"]
    if findings:
        findings.append("run: python3 tools/umbrella.py --write")
    tree.report(findings, "include/perft/perft.hpp lists every header")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Checks who may include what: an arrow between layers may skip downward, never point upward (docs/architecture.md).

usage: check_layers.py [TREE]
"""

import re

import tree

# The layers directly below each one; what those reach is allowed too.
BELOW = {
    "core": [],
    "autograd": ["core"],
    "ops": ["autograd"],
    "nn": ["ops"],
    "io": ["core"],
    "text": ["io"],
    "data": ["text"],
    "dist": ["core"],
    "models": ["nn", "io"],
    "peft": ["nn", "io"],
    "train": ["nn", "io", "data", "dist"],
    "generate": ["nn", "text"],
    "eval": ["generate"],
}

STANDARD = set(
    """algorithm any array atomic barrier bit bitset cassert cctype cerrno cfenv cfloat charconv chrono cinttypes climits
    cmath compare complex concepts condition_variable coroutine csetjmp csignal cstdarg cstddef cstdint cstdio cstdlib
    cstring ctime cwchar deque exception execution forward_list fstream functional future initializer_list iomanip ios
    iosfwd istream iterator latch limits list locale map memory memory_resource mutex new numbers numeric optional ostream
    queue ranges ratio scoped_allocator semaphore set shared_mutex source_location span sstream stack stdexcept stop_token
    streambuf string string_view system_error thread tuple type_traits typeindex typeinfo unordered_map unordered_set
    utility valarray variant vector version""".split()
)
# The C spelling is for what <cstdint> and friends do not promise: global names for kernels, POSIX functions.
C_AND_POSIX = re.compile(r"(std(def|int|io|lib)|string|errno|fcntl|unistd|signal|time)\.h|sys/[a-z]+\.h|linux/[a-z]+\.h")

# Outside headers: a pattern of the include, and a pattern of the headers that may have it.
OUTSIDE = [
    (r"nlohmann/.*", r"perft/io/json\.hpp"),
    (r"utf8proc\.h", r"perft/text/.*"),
    (r"(oneapi/dnnl/)?dnnl.*\.h|dlfcn\.h", r"perft/core/gemm/onednn\.hpp"),
    (r"(immintrin|x86intrin|cpuid)\.h", r"perft/core/(gemm|vec)/.*|perft/core/(cpu_features|vec)\.hpp|perft/.*kernel.*"),
    (r"filesystem", r"perft/(io|text|data|models|peft|train|generate|eval)/.*"),
    (r"iostream|regex|random", r"perft/(train|generate|eval)/.*"),
]


def reach(layer):
    """The layer itself and every layer below it."""
    found = {layer}
    for lower in BELOW[layer]:
        found |= reach(lower)
    return found


def outside_allowed(header, name):
    """None if `header` may include <name>, else why not."""
    for include, where in OUTSIDE:
        if re.fullmatch(include, name):
            return None if re.fullmatch(where, header) else f"only allowed in {where}"
    if name in STANDARD or C_AND_POSIX.fullmatch(name):
        return None
    return "not a standard header, and no layer of include/ may use it"


def check_header(top, header, edges):
    """Findings of one header; its quoted includes go into `edges`."""
    layer = header.split("/")[1]
    if header.count("/") > 1 and layer not in BELOW:
        yield f"include/{header}: {layer} is not a layer; the layers are {', '.join(BELOW)}"
        return
    for number, kind, name in tree.includes(top / "include" / header):
        where = f"include/{header}:{number}: "
        if kind == "<":
            why = outside_allowed(header, name)
            if why:
                yield f"{where}<{name}> is {why}"
            continue
        edges.setdefault(header, []).append(name)
        parts = name.split("/")
        if parts[0] != "perft" or len(parts) < 3:
            yield f'{where}"{name}" must name a header as perft/<layer>/<header>.hpp'
        elif not (top / "include" / name).is_file():
            yield f'{where}"{name}" does not exist'
        elif layer in BELOW and parts[1] not in reach(layer):
            yield f"{where}{layer} may not include {parts[1]}; below it are {', '.join(sorted(reach(layer)))}"


def cycles(edges):
    """One finding per include cycle; #pragma once would hide it until the order of includes changes."""
    done, path = set(), []

    def visit(header):
        if header in path:
            yield "include cycle: " + " -> ".join(path[path.index(header) :] + [header])
            return
        if header in done:
            return
        done.add(header)
        path.append(header)
        for name in edges.get(header, []):
            yield from visit(name)
        path.pop()

    for header in sorted(edges):
        yield from visit(header)


def main():
    top = tree.root()
    edges, findings = {}, []
    headers = tree.headers(top) + tree.headers(top, "*.inc")
    for header in headers:
        findings += check_header(top, header, edges)
    findings += cycles(edges)
    tree.report(findings, f"{len(headers)} headers include nothing above their layer")


if __name__ == "__main__":
    main()

"""What the checks of the tree share: the folder to check, its headers and their include lines."""

import pathlib
import re
import sys

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def root():
    """The tree to check: the command line's first path, else the repository this file is in."""
    paths = [a for a in sys.argv[1:] if not a.startswith("--")]
    return pathlib.Path(paths[0]).resolve() if paths else pathlib.Path(__file__).resolve().parent.parent


def headers(top, pattern="*.hpp"):
    """Every header of the library as a path relative to include/, the umbrella left out."""
    include = top / "include"
    found = (p.relative_to(include).as_posix() for p in include.rglob(pattern))
    return sorted(h for h in found if h != "perft/perft.hpp")


def includes(path):
    """(line number, '<' or '"', name) of every include line of a file."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = INCLUDE.match(line)
        if match:
            yield number, match.group(1), match.group(2)


def report(findings, good):
    """Prints the findings, or `good`, and exits with what ctest expects."""
    for finding in findings:
        print(finding)
    if findings:
        sys.exit(1)
    print(good)

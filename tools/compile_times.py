#!/usr/bin/env python3
"""Prints the slowest compilations of a build folder, from ninja's own log.

usage: compile_times.py BUILD_FOLDER [COUNT]
"""

import pathlib
import sys


def main():
    log = pathlib.Path(sys.argv[1]) / ".ninja_log"
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 8
    seconds = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        fields = line.split("\t")
        if len(fields) == 5 and fields[3].endswith((".o", ".gch")):
            seconds[fields[3]] = (int(fields[1]) - int(fields[0])) / 1000
    print("slowest compilations (the budget for a test file is 25 s alone on a core):")
    for name in sorted(seconds, key=seconds.get, reverse=True)[:count]:
        print(f"{seconds[name]:8.1f} s  {name}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Checks that no row the demo works with is in the text that demo/model was trained on.

usage: check_contamination.py [TREE]

demo/model/rows.txt lists every row of that text: the first 64 bits of SHA-256 of its instruction's ASCII letters and digits,
lower-cased (row_key and row_hash in examples/pretrain_corpus.hpp). Its own SHA-256 stands in demo/model/training.json, where
pretrain wrote both. With PERFT_DATA=FOLDER (laid out as pretrain's --data) the list is made again from the data and compared,
and the rows that are evaluated there (test.json of the commonsense tasks, unseen.json of the arithmetic ones) are looked for too.
"""

import hashlib
import json
import os
import pathlib
import re

import tree


def row_hash(row):
    key = re.sub(rb"[^a-z0-9]", b"", row["instruction"].encode("utf-8").lower())  # of bytes: ASCII alone is lower-cased
    return hashlib.sha256(key).hexdigest()[:16]


def read_rows(path):
    return json.loads(path.read_text(encoding="utf-8"))


def find(path, listed):
    """One finding for each row of `path` that is in `listed`."""
    for number, row in enumerate(read_rows(path), 1):
        if row_hash(row) in listed:
            yield f"{path.name}: row {number} was trained on: {row['instruction'].strip()[:60]!r}"


def in_folder(path, data):
    """A file that training.json names as pretrain was given it, in the data folder `data`."""
    parts = pathlib.PurePosixPath(path).parts
    for top in ("commonsense", "math"):
        if top in parts:
            return data.joinpath(*parts[parts.index(top) :])
    return None


def check_data(corpus, listed, data, top):
    """The list against the data it was made of."""
    held_out = set()
    for entry in corpus["held_out_files"]:
        path = in_folder(entry["path"], data) or top / entry["path"]
        if hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            yield f"{entry['path']}: is not the file whose rows were held out"
        held_out.update(map(row_hash, read_rows(path)))
    rows = set()
    for entry in corpus["train_files"]:
        path = in_folder(entry["path"], data)
        if hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            yield f"{entry['path']}: is not the file that was trained on"
        rows.update(map(row_hash, read_rows(path)))
    if rows - held_out != listed:
        yield f"rows.txt: lists {len(listed)} rows, the data has {len(rows - held_out)} that are not held out; they differ"
    for entry in corpus["held_out_files"]:
        yield from find(in_folder(entry["path"], data) or top / entry["path"], listed)


def main():
    top = tree.root()
    model, demo = top / "demo" / "model", top / "demo" / "data"
    corpus = json.loads((model / "training.json").read_text(encoding="utf-8"))["corpus"]
    text = (model / "rows.txt").read_bytes()
    lines = text.decode("ascii").splitlines()
    listed = set(lines)
    findings = []
    if hashlib.sha256(text).hexdigest() != corpus["rows_txt_sha256"]:
        findings.append("rows.txt: its SHA-256 is not the one in training.json")
    if len(lines) != corpus["rows"] or lines != sorted(listed):
        findings.append(f"rows.txt: {len(lines)} lines, expected the {corpus['rows']} rows of training.json, sorted and distinct")
    if not all(re.fullmatch("[0-9a-f]{16}", line) for line in lines):
        findings.append("rows.txt: a line is not 16 hexadecimal digits")
    files = sorted(demo.glob("*.json"))
    if not files:
        findings.append("demo/data: has no rows; nothing was checked")
    for path in files:
        findings += find(path, listed)
    checked = sum(len(read_rows(path)) for path in files)
    data = os.environ.get("PERFT_DATA")
    if data:
        findings += check_data(corpus, listed, pathlib.Path(data), top)
    against = " and are what the data has" if data else ""
    tree.report(findings, f"none of the demo's {checked} rows is among the {len(lines)} trained on{against}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Tests the checks themselves: a small tree they must accept, and one change each that they must refuse."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

TOOLS = pathlib.Path(__file__).resolve().parent

GOOD = {
    "include/perft/core/shape.hpp": "#pragma once\n#include <array>\n",
    "include/perft/nn/linear.hpp": '#pragma once\n#include "perft/core/shape.hpp"\n',
    "include/perft/io/json.hpp": '#pragma once\n#include <nlohmann/json.hpp>\n#include "perft/core/shape.hpp"\n',
    "include/perft/peft/spec.hpp": '#pragma once\n#include "perft/io/json.hpp"\n#include "perft/nn/linear.hpp"\n',
    "include/perft/text/nfc.hpp": '#pragma once\n#include <utf8proc.h>\n#include "perft/io/json.hpp"\n',
}


class Checks(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.top = pathlib.Path(folder.name)
        for name, text in GOOD.items():
            self.put(name, text)

    def put(self, name, text):
        path = self.top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def run_check(self, script, *options):
        command = [sys.executable, str(TOOLS / script), *options, str(self.top)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def refused(self, script, words):
        code, output = self.run_check(script)
        self.assertEqual(code, 1, output)
        self.assertIn(words, output)

    def test_layers_accept_downward(self):
        self.assertEqual(self.run_check("check_layers.py")[0], 0)

    def test_layers_refuse_upward(self):
        self.put("include/perft/core/up.hpp", '#include "perft/nn/linear.hpp"\n')
        self.refused("check_layers.py", "core may not include nn")

    def test_layers_refuse_siblings(self):
        self.put("include/perft/models/olmoe.hpp", '#include "perft/peft/spec.hpp"\n')
        self.refused("check_layers.py", "models may not include peft")

    def test_layers_refuse_third_party_elsewhere(self):
        for name in ("nlohmann/json.hpp", "fmt/format.h", "CLI/CLI.hpp", "spdlog/spdlog.h", "toml++/toml.h", "dnnl.h"):
            with self.subTest(name):
                self.put("include/perft/models/config.hpp", f"#include <{name}>\n")
                self.refused("check_layers.py", f"<{name}>")

    def test_layers_refuse_heavy_standard_headers(self):
        for name in ("iostream", "regex", "random", "filesystem"):
            with self.subTest(name):
                self.put("include/perft/ops/add.hpp", f"#include <{name}>\n")
                self.refused("check_layers.py", f"<{name}>")

    def test_layers_allow_filesystem_from_io_on(self):
        self.put("include/perft/io/files.hpp", "#include <filesystem>\n")
        self.assertEqual(self.run_check("check_layers.py")[0], 0)

    def test_layers_refuse_cycle(self):
        self.put("include/perft/ops/a.hpp", '#include "perft/ops/b.hpp"\n')
        self.put("include/perft/ops/b.hpp", '#include "perft/ops/a.hpp"\n')
        self.refused("check_layers.py", "include cycle")

    def test_layers_refuse_missing_unknown_and_umbrella(self):
        self.put("include/perft/ops/a.hpp", '#include "perft/core/nothing.hpp"\n')
        self.refused("check_layers.py", "does not exist")
        self.put("include/perft/ops/a.hpp", '#include "perft/perft.hpp"\n')
        self.refused("check_layers.py", "must name a header")
        self.put("include/perft/ops/a.hpp", "")
        self.put("include/perft/misc/a.hpp", "")
        self.refused("check_layers.py", "misc is not a layer")

    def test_umbrella(self):
        self.refused("umbrella.py", "lacks")
        self.assertEqual(self.run_check("umbrella.py", "--write")[0], 0)
        text = (self.top / "include/perft/perft.hpp").read_text(encoding="utf-8")
        plain, json_only, both = text.split("#if ")
        self.assertIn("nn/linear.hpp", plain)
        self.assertIn("peft/spec.hpp", json_only)
        self.assertIn("text/nfc.hpp", both)
        self.put("include/perft/core/late.hpp", "")
        self.refused("umbrella.py", "core/late.hpp")

    def test_text(self):
        self.assertEqual(self.run_check("check_text.py")[0], 0)
        cases = {
            "include/perft/core/long.hpp": "//\n" * 501,
            "include/perft/core/open.hpp": "// TO" "DO: later\n",
            "tests/a_test.cpp": "CHECK(tr" "ue);\n",
            "README.md": "see /ho" "me/somebody/perft\n",
        }
        for name, text in cases.items():
            with self.subTest(name):
                self.put(name, text)
                self.refused("check_text.py", name)
                (self.top / name).unlink()
        # Without git to ask, build trees and git's own files are left out all the same.
        for name in ("build/release/open.hpp", ".git/open.hpp", "tools/__pycache__/open.hpp"):
            self.put(name, "// TO" "DO: later\n")
        self.assertEqual(self.run_check("check_text.py")[0], 0)

    def put_model(self, rows, files):
        """A demo whose model was trained on `rows`, in the order pretrain leaves them, and is used on `files`."""
        lines = sorted(hashlib.sha256(key.encode()).hexdigest()[:16] for key in rows)
        text = "".join(line + "\n" for line in lines)
        corpus = {"rows": len(rows), "rows_txt_sha256": hashlib.sha256(text.encode()).hexdigest()}
        corpus["held_out_files"] = [{"path": f"demo/data/{name}", "sha256": self.put_rows(f"demo/data/{name}", instructions)}
                                    for name, instructions in files.items()]
        corpus["train_files"] = [{"path": "../data/math/train.json",
                                  "sha256": self.put_rows("data/math/train.json", ["Who?", "What is it?", "How many?"])}]
        self.put("demo/model/rows.txt", text)
        self.put("demo/model/training.json", json.dumps({"corpus": corpus}))

    def put_rows(self, name, instructions):
        text = json.dumps([{"instruction": instruction, "output": ""} for instruction in instructions])
        self.put(name, text)
        return hashlib.sha256(text.encode()).hexdigest()

    def test_contamination(self):
        script = "check_contamination.py"
        self.put_model(["who", "whatisit"], {"task.json": ["Which?", "How many?"]})
        code, output = self.run_check(script)
        self.assertEqual(code, 0, output)
        self.assertIn("none of the demo's 2 rows is among the 2 trained on", output)
        # One row put in, written otherwise than it was trained on.
        self.put_rows("demo/data/other.json", ["Which?", " what IS it ?! "])
        self.refused(script, "other.json: row 2 was trained on: 'what IS it ?!'")
        (self.top / "demo/data/other.json").unlink()
        # A list without that row is not the one that was written.
        self.put("demo/model/rows.txt", hashlib.sha256(b"who").hexdigest()[:16] + "\n")
        self.refused(script, "rows.txt: its SHA-256 is not the one in training.json")
        self.put_model(["who", "whatisit"], {})
        (self.top / "demo/data/task.json").unlink()
        self.refused(script, "demo/data: has no rows")

    def test_contamination_against_the_data(self):
        script = "check_contamination.py"
        self.put_model(["who", "whatisit"], {"task.json": ["How many?"]})
        os.environ["PERFT_DATA"] = str(self.top / "data")
        self.addCleanup(os.environ.pop, "PERFT_DATA")
        code, output = self.run_check(script)
        self.assertEqual(code, 0, output)
        self.assertIn("and are what the data has", output)
        self.put_model(["who"], {"task.json": ["How many?"]})
        self.refused(script, "rows.txt: lists 1 rows, the data has 2")
        self.put_model(["who", "whatisit"], {"task.json": ["How many?"]})
        self.put_rows("data/math/train.json", ["Who?", "What is it? "])
        self.refused(script, "train.json: is not the file that was trained on")


if __name__ == "__main__":
    unittest.main()

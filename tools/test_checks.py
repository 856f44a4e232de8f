#!/usr/bin/env python3
"""Tests the checks themselves: a small tree they must accept, and one change each that they must refuse."""

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


if __name__ == "__main__":
    unittest.main()

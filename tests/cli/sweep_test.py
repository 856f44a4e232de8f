#!/usr/bin/env python3
"""perft sweep: its cells are the runs that finetune would do alone, it goes on after a stop, and its tables say what the runs say.

Environment: PERFT_BINARY (make_checkpoint is looked for beside it), PERFT_FIXTURES.
"""
import csv
import filecmp
import html.parser
import json
import os
import signal
import subprocess
import tempfile
import time

BINARY = os.environ["PERFT_BINARY"]
MAKE_CHECKPOINT = os.path.join(os.path.dirname(BINARY), "make_checkpoint")
FIXTURES = os.environ["PERFT_FIXTURES"]
PAPER_GRID = os.path.join(FIXTURES, "..", "..", "examples", "grids", "paper_grid.toml")
WEIGHTS = "adapter_model.safetensors"

folder = tempfile.TemporaryDirectory(prefix="perft-sweep-")


def path(*names):
    return os.path.join(folder.name, *names)


def write(name, text):
    with open(path(name), "w", encoding="utf-8") as file:
        file.write(text)
    return path(name)


def run(*arguments, code=0):
    done = subprocess.run([BINARY, *arguments], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
    if code == 0:
        assert done.stderr == "", done.stderr
        return done.stdout
    assert done.stderr.startswith("perft: error: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def shared(**options):
    values = {"model": path("model"), "data": [path("rows.json")], "dtype": "f32", "lr": 5e-3, "warmup": 2, "batch-size": 4, "val-size": 8,
              "eval-every": 2, "save-every": 2, "cutoff": 32, "max-steps": 6, **options}
    return "[options]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())


def prepare():
    subprocess.run([MAKE_CHECKPOINT, "--out", path("model"), "--tokenizer", os.path.join(FIXTURES, "tokenizers", "olmoe", "tokenizer.json"),
                    "--hidden", "16", "--layers", "1", "--heads", "2", "--experts", "4", "--top-k", "2", "--inner", "8"], check=True,
                   stdout=subprocess.DEVNULL)
    write("rows.json", json.dumps([{"instruction": f"What is {a} plus {b}?", "output": f"{a + b}"} for a in range(6) for b in range(6)]))


def sweep(grid, out, *options, code=0):
    return run("sweep", "--config", grid, "--out", path(out), *options, code=code)


def table(out):
    with open(path(out, "sweep.csv"), encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def alone(name, *options):
    text = run("finetune", "--model", path("model"), "--data", path("rows.json"), "--out", path(name), "--dtype", "f32", "--lr", "5e-3", "--warmup",
               "2", "--batch-size", "4", "--val-size", "8", "--eval-every", "2", "--save-every", "2", "--cutoff", "32", "--json", *options)
    return json.loads(text.splitlines()[-1])


CELLS = ["experts-1_rank-2", "experts-1_rank-4", "experts-2_rank-2", "experts-2_rank-4"]
GRID = '[grid]\nmethod = "perft-r"\nexperts = [1, 2]\n"top-k" = 1\nrank = [2, 4]\n'


def test_cells_equal_single_runs():
    grid = write("grid.toml", shared() + GRID)
    printed = sweep(grid, "whole")
    for i, name in enumerate(CELLS):
        experts, rank = name.split("_")[0][-1], name[-1]
        result = alone("alone-" + name, "--method", "perft-r", "--experts", experts, "--top-k", "1", "--rank", rank, "--max-steps", "6")
        assert filecmp.cmp(path("whole", name, WEIGHTS), path("alone-" + name, WEIGHTS), shallow=False), name
        (line,) = [line for line in table("whole") if line["cell"] == name]
        assert (line["experts"], line["rank"], line["state"], line["steps"]) == (experts, rank, "finished", "6"), line
        assert "method" not in line and "top-k" not in line, line  # the same in all cells
        assert float(line["best_val_loss"]) == result["best_val_loss"] and float(line["train_loss"]) == result["train_loss"], (line, result)
        assert int(line["trainable_parameters"]) == result["trainable_parameters"], (line, result)
        metrics = [json.loads(text) for text in open(path("whole", name, "metrics.jsonl"))]
        best = min((m for m in metrics if "val_loss" in m and m["step"] > 0), key=lambda m: m["val_loss"])
        assert int(line["best_step"]) == best["step"] and float(line["val_standard_error"]) == best["val_standard_error"], (line, best)
        steps = [m for m in metrics if "lr" in m][1:]
        speed = sum(m["tokens"] for m in steps) / sum(m["seconds"] for m in steps)
        assert abs(float(line["tokens_per_second"]) / speed - 1) < 1e-9 and float(line["wall_seconds"]) > 0, (line, speed)
        assert f"[{i + 1}/4] {name}: best validation loss" in printed, printed
    losses = [float(line["best_val_loss"]) for line in table("whole")]
    assert losses == sorted(losses) and len(losses) == 4, losses
    order = [line["cell"] for line in table("whole")]
    shown = [line.split()[0] for line in printed.split("\ncell ")[1].splitlines()[1:5]]
    markdown = [line.split("|")[1].strip() for line in open(path("whole", "sweep.md"), encoding="utf-8").read().splitlines()[2:6]]
    assert shown == markdown == order, (shown, markdown, order)
    check_page("whole", order)
    before = {name: os.stat(path("whole", name, WEIGHTS)).st_mtime_ns for name in CELLS}
    was = table("whole")
    begin = time.time()
    again = json.loads(sweep(grid, "whole", "--json").splitlines()[-1])
    assert time.time() - begin < 5 and table("whole") == was, "finished cells ran again"
    assert before == {name: os.stat(path("whole", name, WEIGHTS)).st_mtime_ns for name in CELLS}
    assert [cell["cell"] for cell in again["cells"]] == order and again["left_out"] == [], again
    assert again["cells"][0]["options"] == {"experts": was[0]["experts"], "rank": was[0]["rank"]}, again["cells"][0]


def check_page(out, order):
    """Well-formed, the cells in order, nothing loaded from elsewhere."""

    class Page(html.parser.HTMLParser):
        def __init__(self):
            super().__init__()
            self.open, self.links = [], []

        def handle_starttag(self, tag, attributes):
            values = dict(attributes)
            assert tag not in ("script", "link", "img", "iframe"), tag
            if tag == "a":
                self.links.append(values["href"])
            if tag not in ("meta", "br", "line", "circle", "polyline", "rect", "polygon"):
                self.open.append(tag)

        def handle_startendtag(self, tag, attributes):
            pass

        def handle_endtag(self, tag):
            assert self.open.pop() == tag, tag

    with open(path(out, "sweep.html"), encoding="utf-8") as file:
        text = file.read()
    page = Page()
    page.feed(text)
    assert page.open == ["p"] * page.open.count("p") and page.links == [name + "/report.html" for name in order], page.links
    assert "http" not in text.replace("http://www.w3.org", "") and "<circle" in text, "the page loads something, or draws no losses"
    assert all(os.path.exists(path(out, link)) for link in page.links)
    assert all(f"</span> experts {m}<br>" in text for m in (1, 2)) and text.count("<polyline") == 2, "a line for each number of experts"


def test_stopped_and_killed():
    """SIGINT, then SIGKILL, in the middle: the same command goes on, and ends in the bytes of a sweep that was left alone."""
    grid = write("long.toml", shared(**{"max-steps": 60, "eval-every": 20, "save-every": 20}) + GRID)
    sweep(grid, "long-whole")
    command = [BINARY, "sweep", "--config", grid, "--out", path("long")]

    def stop(cell, number):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        metrics = path("long", cell, "metrics.jsonl")
        for _ in range(60000):
            if os.path.exists(metrics) and sum(1 for _ in open(metrics)) >= 5:
                break
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        busy = subprocess.run([*command], capture_output=True, text=True, check=False)
        assert busy.returncode == 1 and "another perft sweep is at work here" in busy.stderr, busy
        process.send_signal(number)
        out, err = process.communicate()
        assert err == "", err
        return process.returncode, out

    code, out = stop(CELLS[1], signal.SIGINT)
    assert code == 130 and f"[2/4] {CELLS[1]}: stopped" in out and "[3/4]" not in out, (code, out)
    states = {line["cell"]: line["state"] for line in table("long")}
    assert states == {CELLS[0]: "finished", CELLS[1]: "stopped", CELLS[2]: "waiting", CELLS[3]: "waiting"}, states
    code, _ = stop(CELLS[2], signal.SIGKILL)
    assert code == -signal.SIGKILL, code
    metrics = path("long", CELLS[2], "metrics.jsonl")
    lines = -1
    while lines != sum(1 for _ in open(metrics)):  # the cell that was at work saves and ends by itself
        lines = sum(1 for _ in open(metrics))
        time.sleep(0.5)
    assert lines < 60, "the run of a killed sweep went on to its end"
    begin = table("long")
    sweep(grid, "long")
    for name in CELLS:
        assert filecmp.cmp(path("long", name, WEIGHTS), path("long-whole", name, WEIGHTS), shallow=False), name
        steps = [m["step"] for m in map(json.loads, open(path("long", name, "metrics.jsonl"))) if "lr" in m]
        assert steps == list(range(1, 61)), (name, steps)
    key = [(line["cell"], line["best_val_loss"], line["train_loss"], line["best_step"]) for line in table("long")]
    assert key == [(line["cell"], line["best_val_loss"], line["train_loss"], line["best_step"]) for line in table("long-whole")], (key, begin)


def test_cells_that_fail_or_are_left_out():
    """perft-e refuses a number of experts that is not the base's only when it sees the base: that cell fails, the others run."""
    grid = write("mixed.json", json.dumps({"options": json.loads(json.dumps({"model": path("model"), "data": path("rows.json"), "dtype": "f32",
                 "val-size": 0, "max_steps": 2, "batch-size": 4, "cutoff": 32, "rank": 2})), "grid": [
                     {"method": "perft-r", "experts": [1, 2], "top-k": [1, 2]}, {"method": "perft-e", "experts": [3, 4]},
                     {"method": "lora", "lora-targets": ["q_proj,v_proj", ["gate"]]}, {"method": ["perft-s", "perft-r"], "experts": 1, "top-k": 1}]}))
    error = sweep(grid, "mixed", code=1)
    assert f"{path('mixed')}: 1 of 7 cells failed, first perft-e_experts-3: " in error and "3 experts, expected the base's 4" in error, error
    lines = {line["cell"]: line for line in table("mixed")}
    assert list(lines)[-1] == "perft-e_experts-3" and lines["perft-e_experts-3"]["state"] == "failed", list(lines)
    assert "expected the base's 4" in lines["perft-e_experts-3"]["error"], lines["perft-e_experts-3"]
    finished = ["perft-r_experts-1_top-k-1", "perft-r_experts-2_top-k-1", "perft-r_experts-2_top-k-2", "perft-e_experts-4",
                "lora_lora-targets-q_proj+v_proj", "lora_lora-targets-gate"]
    assert sorted(finished) == sorted(name for name, line in lines.items() if line["state"] == "finished"), list(lines)
    assert all(line["best_val_loss"] == "" and line["train_loss"] for line in lines.values() if line["state"] == "finished"), lines
    losses = [float(line["train_loss"]) for line in lines.values() if line["state"] == "finished"]
    assert losses == sorted(losses), losses
    listed = json.loads(sweep(grid, "mixed", "--list", "--json"))
    reasons = {cell["cell"]: cell["reason"] for cell in listed["left_out"]}
    assert reasons == {"perft-r_experts-1_top-k-2": "--top-k 2 is more than --experts 1; lower it or raise --experts",
                       "perft-s_experts-1_top-k-1": "--experts does not apply to --method perft-s; leave it out",
                       "perft-r_experts-1_top-k-1": "it is perft-r_experts-1_top-k-1 once more"}, reasons
    assert sweep(grid, "mixed", "--json", code=1) == error  # the cell that failed, and it alone, ran again
    page = open(path("mixed", "sweep.md"), encoding="utf-8").read()
    assert "perft-e_experts-3: failed: " in page and "left out: perft-s_experts-1_top-k-1: --experts does not apply" in page, page


def test_a_longer_sweep_goes_on():
    grid = write("short.toml", shared(**{"max-steps": 4}) + '[grid]\nmethod = ["perft-s", "lora"]\nrank = 2\n')
    sweep(grid, "longer")
    grid = write("short.toml", shared(**{"max-steps": 6}) + '[grid]\nmethod = ["perft-s", "lora"]\nrank = 2\n')
    sweep(grid, "longer")
    assert [line["steps"] for line in table("longer")] == ["6", "6"], table("longer")
    grid = write("short.toml", shared(**{"max-steps": 6, "seed": 7}) + '[grid]\nmethod = ["perft-s", "lora"]\nrank = 2\n')
    error = sweep(grid, "longer", code=1)
    assert "2 of 2 cells failed" in error and "--seed is 42 in the saved run and 7 now" in error, error


def test_names():
    """Long values are cut, what a file name may not hold is replaced, and names stay different."""
    far = ["/" + "a" * 200 + "/x.json", "/" + "a" * 200 + "/y z.json", "../b;c.json"]
    grid = write("names.json", json.dumps({"grid": {"method": "perft-s", "data": far}}))
    names = sweep(grid, "names", "--model", "m", "--list").splitlines()[:3]
    assert names == ["data--" + "a" * 144, "data--" + "a" * 144 + "_2", "data-..-b-c.json"], names


def test_the_paper_grid():
    printed = sweep(PAPER_GRID, "paper", "--model", "m", "--data", "d.json", "--list").splitlines()
    assert printed[64] == "64 cells" and not os.path.exists(path("paper")), printed
    pairs = {(int(m), int(k)) for m, k in ((name.split("_")[0][8:], name.split("_")[1][6:]) for name in printed[:64])}
    expected = {(m, k) for m in (1, 2, 4, 8, 16) for k in (1, 2, 4, 8) if k <= m} | {(32, 8), (64, 8)}
    assert pairs == expected and {name.split("rank-")[1] for name in printed[:64]} == {"4", "8", "16", "32"}, pairs


with folder:
    prepare()
    test_cells_equal_single_runs()
    test_stopped_and_killed()
    test_cells_that_fail_or_are_left_out()
    test_a_longer_sweep_goes_on()
    test_names()
    test_the_paper_grid()
print("sweep: cells are single runs, and the tables are theirs")

"""The benchmark of a model near the size of memory runs, with a small one and without Ray."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from search.config import read_config
from search.here import run_here

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def seven():
    path = ROOT / "benchmarks" / "seven_billion.py"
    spec = importlib.util.spec_from_file_location("seven_billion", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules["seven_billion"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_step_is_done_once_and_the_table_says_both_sides(seven, run, tmp_path, monkeypatch):
    monkeypatch.setattr("cluster.forecast._seconds_of_import", lambda: 3.0)
    asked = []

    def here(command):
        asked.append(command[0])
        if command[0] == "launch" and "--plan" not in command:
            assert run_here(read_config(Path(command[1])), Path(command[3])) is not None
            said = ""
        else:
            code, said, error = run(*command)
            assert code == 0, error
        return said, {"wall_s": 1.0} | seven.Taken().to_json()

    bench = seven.Bench(tmp_path, True, here)
    results = bench.measure()
    assert asked == ["launch", "launch", "status", "export"]
    said = results["plan"]["said"]
    assert said["mapped_bytes"] == results["model"]["bytes"] > 0
    assert [m["address"] for m in said["matrices"]] == [f"{n}.fc_in" for n in (2, 3, 4, 5)]
    assert results["launch"]["status"]["finished"] == said["trials"]
    assert results["export"]["patch_bytes"] > 0
    assert seven.Bench(tmp_path, True, here).measure() == results and len(asked) == 4
    table = seven.table(results)
    assert "| own memory of a worker, GiB |" in table and "| baseline, s |" in table


def test_what_marked_processes_take_is_sampled(seven):
    watch = seven.Watch("here")
    marked = {**os.environ, seven.MARK: "here"}
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1, env=marked) as child:
        for _ in range(200):
            watch.look()
            if watch.taken.own_bytes.get("other"):
                break
        child.communicate(b"\n")
    taken = watch.taken.to_json()
    assert taken["together_bytes"] >= taken["own_bytes"]["other"] > 0
    assert taken["least_available_bytes"] < seven.psutil.virtual_memory().total

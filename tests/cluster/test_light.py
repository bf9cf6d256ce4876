"""Commands that only look import nothing that takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import pytest

from cluster.cli import main

HEAVY = ("torch", "transformers", "scipy", "ray", "datasets", "matplotlib")
PROGRAM = """
import json, sys
from cluster.cli import main
sys.argv = ["laser-search", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    print(json.dumps([end.code or 0, sorted(m for m in {heavy} if m in sys.modules)]))
"""
OLD = Path(__file__).parents[1] / "old"


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["launch", "--help"],
        ["status", OLD / "study"],
        ["status", OLD / "study", "--json"],
        ["watch", OLD / "study", "--once"],
        ["logs", OLD / "study"],
        ["factors", "du", OLD / "factors"],
        ["schema"],
        ["presets"],
    ],
    ids=lambda words: " ".join(map(str, words[:2])).replace(str(OLD), "OLD"),
)
def test_looking_imports_nothing_heavy(words: list[str]) -> None:
    program = [sys.executable, "-c", PROGRAM.format(heavy=HEAVY), *map(str, words)]
    done = subprocess.run(program, capture_output=True, text=True)
    code, imported = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stdout + done.stderr
    assert imported == []


def test_neither_driver_nor_worker_imports_what_only_a_database_needs() -> None:
    program = "import sys, cluster.driver, cluster.worker; print('sqlalchemy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_a_finished_study_is_resumed_without_ray(tmp_path, make_study, one_process, monkeypatch):
    """Its verdict is computed anew from what was recorded; if some of that is gone, Ray starts."""
    folder = tmp_path / "run"
    one_process("launch", make_study(tmp_path / "study", trials=4), "--out", folder, "--quiet")
    result, baseline = folder / "result.json", folder / "outcomes" / "baseline-test.parquet"
    before = result.read_bytes()
    started: list[bool] = []
    monkeypatch.setattr("cluster.driver.living_nodes", lambda: started.append(True) or [{"CPU": 2}])

    def without_ray(*words: object) -> None:
        monkeypatch.setattr(sys, "argv", ["laser-search", *map(str, words)])
        with patch("cluster.driver.ray_session", lambda *_: nullcontext()):
            try:
                main()
            except SystemExit as end:
                assert not end.code

    result.write_bytes(before)
    without_ray("resume", folder, "--quiet")
    assert not started, "nothing is left to evaluate"
    assert f"it is finished: laser-search status {folder}" in one_process("stop", folder).stdout
    assert result.read_bytes() == before
    baseline.unlink()
    one_process("resume", folder, "--quiet")
    assert baseline.exists(), "what was gone is evaluated again"
    assert result.read_bytes() == before

"""Commands that only look import nothing that takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
    ],
    ids=lambda words: " ".join(map(str, words[:2])).replace(str(OLD), "OLD"),
)
def test_looking_imports_nothing_heavy(words: list[str]) -> None:
    program = [sys.executable, "-c", PROGRAM.format(heavy=HEAVY), *map(str, words)]
    done = subprocess.run(program, capture_output=True, text=True)
    code, imported = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stdout + done.stderr
    assert imported == []

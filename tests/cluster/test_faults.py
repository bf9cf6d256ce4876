"""The chaos benchmark, a few runs of it: everything goes wrong, and the study is the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "chaos.py"


@pytest.mark.parametrize("first", [1])
def test_a_study_survives(first: int) -> None:
    """Run 1 tears the journal and kills the driver."""
    if not SCRIPT.exists():
        pytest.skip("benchmarks are not shipped with the wheel")
    words = [sys.executable, SCRIPT, "--runs", "1", "--first", str(first), "--trials", "8"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

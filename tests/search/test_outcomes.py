"""Outcome files: whole again after writing, and readable together by anyone."""

from pathlib import Path

import pandas as pd
import pytest

from search.study.outcomes import Evaluation, read_outcomes, write_outcomes
from tasks.base import Outcome

CHOICE = Outcome("e1", "g", 1.0, -0.25, "yes", tokens=1, confidence=0.75, brier=0.125)
OPEN = Outcome("e2", "g", 0.0, -7.5, "Rome", rank=3, tokens=2)
PLAIN = Outcome("e3", "h", 0.5, -1.0, "x")


@pytest.fixture
def write(tmp_path: Path):
    def write(name, *outcomes):
        found = Evaluation(name, "s", "baseline", "", "test", 0.5, 1.0, {}, outcomes)
        write_outcomes(tmp_path, found)
        return found

    return write


def test_what_was_written_is_read(tmp_path: Path, write) -> None:
    found = write("a", CHOICE, OPEN, PLAIN)
    again = read_outcomes(tmp_path, "a", "s", "")
    assert again == found
    assert again.outcomes == (CHOICE, OPEN, PLAIN)
    assert read_outcomes(tmp_path, "a", "another", "") is None


def test_files_with_and_without_optional_values_are_one_table(tmp_path: Path, write) -> None:
    write("a", PLAIN)
    write("b", CHOICE)
    write("c", OPEN)
    table = pd.read_parquet(tmp_path / "outcomes")
    assert list(table["evaluation"]) == ["a", "b", "c"]
    assert table.set_index("evaluation").loc["c", "rank"] == 3
    assert table["confidence"].isna().tolist() == [True, False, True]

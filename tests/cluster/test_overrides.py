"""Values from the command line reach the frozen study, and a study goes on with more trials."""

from __future__ import annotations

from pathlib import Path

from search.config import read_config
from search.study.study_record import CONFIG, StudyRecord


def test_a_study_is_launched_with_other_values_and_goes_on(
    tmp_path: Path, one_process, make_study
) -> None:
    given, folder = make_study(tmp_path), tmp_path / "study"
    before = given.read_text()
    one_process(
        *("launch", given, "--out", folder, "--quiet"),
        *("--trials", 2, "--set", "space.rho=[0.1, 0.4]"),
    )
    frozen = read_config(folder / CONFIG)
    assert (frozen.search.trials, frozen.space.rho) == (2, [0.1, 0.4])
    assert given.read_text() == before, "the user's file stays as it is"
    first = StudyRecord.read(folder).trials
    assert len(first) == 2

    one_process("resume", folder, "--quiet", "--trials", "+2")
    assert read_config(folder / CONFIG).search.trials == 4
    record = StudyRecord.read(folder)
    assert record.summary.finished == 4
    assert [t.values for t in record.trials[:2]] == [t.values for t in first]

    assert "not a number of trials" in one_process("resume", folder, "--trials", "x", code=2).stderr
    assert "KEY=VALUE" in one_process("launch", given, "--set", "x", code=2).stderr

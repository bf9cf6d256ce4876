"""A study searches levels of every kind and rule beside one another, and goes on exactly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from search.study.study_record import StudyRecord

LEVELS = [0.1, "energy:0.9", "marchenko-pastur", "prune/0.5", "keep-bottom/0.1", "zero"]


def write(given: Path, **space: object) -> Path:
    raw = yaml.safe_load(given.read_text())
    raw["space"] = {"levels": LEVELS, "max_interventions": 2, **space}
    given.write_text(yaml.safe_dump(raw))
    return given


@pytest.mark.parametrize("strategy", ["auto", "tpe"])
def test_levels_of_every_kind(strategy, tmp_path, make_study, one_process) -> None:
    given = "0.fc_in=energy:0.5"
    asked = {"strategy": strategy, "warm_start": [given], "trials": 14}
    study = write(make_study(tmp_path / "study", **asked), groups=["mlp"])
    whole, half = tmp_path / "whole", tmp_path / "half"
    one_process("launch", study, "--out", whole, "--quiet")
    trials = StudyRecord.read(whole).trials
    assert str(trials[0].composition) == given
    kinds = {i.kind for trial in trials for i in trial.composition.interventions}
    assert len(kinds) >= 3, f"{kinds} of the space's four were tried"
    assert len({trial.effect for trial in trials}) == 14
    assert all("energy" not in trial.effect for trial in trials), "an effect is a number of ranks"

    one_process("launch", study, "--out", half, "--quiet", "--trials", 6)
    one_process("resume", half, "--quiet", "--trials", 14)
    again = StudyRecord.read(half).trials
    assert [t.text for t in again] == [t.text for t in trials]
    assert [t.values for t in again] == [t.values for t in trials]

    words = ("--trial", 0, "--format", "factored", "--anyway", "--json")
    said = one_process("export", whole, "--out", tmp_path / "out", *words).stdout
    assert json.loads(said)["verdict"]["agrees"], said

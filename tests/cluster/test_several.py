"""A study of several tasks with a floor and chunks, as a user runs it, with no Ray.

That Ray's workers give the same is shown in test_launch.py.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from cluster.cli import app
from search.report.changes import find_changes
from search.study.study_record import StudyRecord
from tasks.errors import InputError

TRIALS = 8


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory, one_process, make_several):
    """The study's folder, and what its launch printed."""
    folder = tmp_path_factory.mktemp("several")
    path = make_several(folder, trials=TRIALS, chunks=2)
    return folder / "study", one_process("launch", path, "--out", folder / "study").stdout


@pytest.fixture(scope="module")
def several(launched) -> Path:
    return launched[0]


def test_what_is_printed_of_a_floor_is_what_the_outcomes_say(launched) -> None:
    study, printed = launched
    winner = StudyRecord.read(study).summary.winner
    assert winner is not None, "the study was chosen so that something helps"
    outcomes = pd.read_parquet(study / "outcomes")
    texts = outcomes[outcomes["task"] == "perplexity"]
    sums = (texts["score"] * texts["weight"]).groupby(texts["evaluation"]).sum()
    means = sums / texts.groupby("evaluation")["weight"].sum()
    lost = means["baseline-test"] - means[f"trial-{winner.number:05d}-test"]
    how = "keeps" if lost <= math.log(1.5) else "Warning: BREAKS"
    said = [line for line in printed.splitlines() if "the floor of perplexity on test" in line]
    assert [line.partition(" the floor")[0] for line in said] == [how, "keeps"], (lost, said)
    assert [line.rpartition(" ")[2] for line in said] == ["(worse_by)", "(limit)"]


def test_every_trial_is_what_its_outcomes_say(several: Path) -> None:
    record = StudyRecord.read(several)
    assert record.summary.finished == TRIALS
    outcomes = pd.read_parquet(several / "outcomes")
    outcomes["weighted"] = outcomes["score"] * outcomes["weight"]
    sums = outcomes.groupby(["evaluation", "task"])[["weighted", "weight"]].sum()
    means = (sums["weighted"] / sums["weight"]).unstack()
    before = means.loc["baseline-validation"]
    for trial in record.trials:
        own = means.loc[f"trial-{trial.number:05d}"]
        assert trial.scores == pytest.approx(own.dropna().to_dict())  # general text: the winner
        gains = own / before - 1
        assert trial.score == pytest.approx((2 * gains["first"] + gains["second"]) / 3)
        lost = before["perplexity"] - own["perplexity"]
        assert trial.feasible == (lost <= math.log(1.5))
    assert 0 < record.summary.infeasible < TRIALS, "both sides of the floor must be seen"
    assert record.summary.infeasible == sum(not t.feasible for t in record.trials)


def test_status_compare_and_resume(several: Path, one_process) -> None:
    before = {p: p.read_bytes() for p in sorted((several / "outcomes").iterdir())}
    one_process("resume", several, "--quiet")
    assert {p: p.read_bytes() for p in sorted((several / "outcomes").iterdir())} == before

    def ask(*words: object, code: int = 0) -> str:
        """In this process, which is quicker than a new one."""
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == code, done.output
        return done.stdout

    said = ask("status", several)
    assert "baseline: 0.0000 (first 0." in said
    found = json.loads(ask("status", several, "--json"))
    assert found["tasks"]["perplexity"]["metric"] == "perplexity"
    assert found["tasks"]["perplexity"]["baseline"] > 1
    printed = ask("compare", several, "--trial", 0, "--by", "task", "--examples", 0)
    for word in ("relative gain 0.0000 to ", "first: accuracy", "perplexity: perplexity"):
        assert word in printed
    one = json.loads(ask("compare", several, "--trial", 0, "--task", "second", "--json"))
    assert one["metric"] == "accuracy"
    changed = [row["example_id"] for row in one["fixed"] + one["broken"]]
    assert changed, "the trial was to change an answer, else nothing is listed"
    assert all(name.startswith("second/") for name in changed)
    with pytest.raises(InputError, match="it has first, second, perplexity"):
        find_changes(StudyRecord.read(several), None, None, 0, "third")

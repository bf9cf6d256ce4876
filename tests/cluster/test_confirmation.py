"""A study that ends by a rule, confirms its winner and has a front: as a user runs it, no Ray."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq

from search.study.study_record import StudyRecord


def test_a_rule_ends_it_and_the_winner_is_confirmed(
    tmp_path: Path, one_process, make_study
) -> None:
    study = make_study(
        tmp_path,
        workers=2,
        trials=60,
        pareto=True,
        stop={"no_gain_trials": 9},
        confirm={"share": 0.4, "finalists": 3},
    )
    folder = tmp_path / "study"
    one_process("launch", study, "--out", folder, "--quiet")
    found = json.loads(one_process("status", folder, "--json").stdout)
    assert found["finished"] < 60
    assert "no_gain_trials is 9" in found["notices"][0]
    best = max(trial.values[0] for trial in StudyRecord.read(folder).trials)
    assert found["front"][0]["score"] == best, "the best score is on the front, and first"
    text = one_process("status", folder).stdout
    assert "of the parameters" in text
    assert "continue with" not in text

    questions = pq.read_table(folder / "questions.parquet").to_pylist()
    parts = {
        part: {q["group"] for q in questions if q["part"] == part}
        for part in ("validation", "confirm", "test")
    }
    assert parts["confirm"]
    assert not parts["confirm"] & (parts["validation"] | parts["test"])
    result = StudyRecord.read(folder).result
    asked = sorted(path.stem for path in (folder / "outcomes").glob("*-confirm.parquet"))
    assert result["finalists"] == len(asked) - 1 > 0
    chosen = StudyRecord.read(folder).summary.winner
    assert chosen is not None, "the study was chosen so that a finalist is confirmed"
    assert result["trial"] == chosen.number
    sides = result["scores"]
    assert all("confirm" in scores for scores in sides.values())
    best = sides["winner"]["confirm"]["score"], -sides["winner"]["confirm"]["log_loss"]
    base = sides["baseline"]["confirm"]["score"], -sides["baseline"]["confirm"]["log_loss"]
    assert best > base, "the winner must beat the unedited model where it was confirmed"
    names = {path.name: path.read_bytes() for path in (folder / "outcomes").iterdir()}
    one_process("resume", folder, "--quiet")
    assert {path.name: path.read_bytes() for path in (folder / "outcomes").iterdir()} == names
    assert one_process("report", folder).returncode == 0

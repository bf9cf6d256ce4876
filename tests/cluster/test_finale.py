"""A study that ends by a rule, confirms its winner and has a front, through the program itself."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq

from search.study.record import StudyRecord


def test_a_rule_ends_it_and_the_winner_is_confirmed(tmp_path: Path, run, make_study) -> None:
    study = make_study(
        tmp_path,
        workers=2,
        trials=60,
        pareto=True,
        stop={"no_gain_trials": 9},
        confirm={"share": 0.4, "finalists": 3},
    )
    folder = tmp_path / "study"
    run("launch", study, "--out", folder, "--quiet")
    found = json.loads(run("status", folder, "--json").stdout)
    assert found["finished"] < 60
    assert "no_gain_trials is 9" in found["notices"][0]
    assert [row["score"] for row in found["front"]] == sorted(
        (row["score"] for row in found["front"]), reverse=True
    )
    text = run("status", folder).stdout
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
    assert result["trial"] == (None if chosen is None else chosen.number)
    sides = result["scores"]
    assert all("confirm" in scores for scores in sides.values())
    if chosen is not None:
        best = sides["winner"]["confirm"]["score"], -sides["winner"]["confirm"]["log_loss"]
        base = sides["baseline"]["confirm"]["score"], -sides["baseline"]["confirm"]["log_loss"]
        assert best > base
    names = {path.name: path.read_bytes() for path in (folder / "outcomes").iterdir()}
    run("resume", folder, "--quiet")
    assert {path.name: path.read_bytes() for path in (folder / "outcomes").iterdir()} == names
    assert run("report", folder).returncode == 0

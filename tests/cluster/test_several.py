"""A study of several tasks, as a user runs it: two workers, a floor, chunks."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from cluster.cli import app
from search.demo.study import HERE
from search.report.changes import find_changes
from search.study.choice import is_feasible
from search.study.record import StudyRecord
from search.study.study import SCORES
from tasks.errors import InputError

TRIALS = 8


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory, run) -> Path:
    folder = tmp_path_factory.mktemp("several")
    rows = [json.loads(line) for line in (HERE / "questions.jsonl").read_text().splitlines()[:300]]
    for name, chosen in (("a", rows[:120]), ("b", rows[120:240])):
        text = "".join(json.dumps(row) + "\n" for row in chosen)
        (folder / f"{name}.jsonl").write_text(text)
    texts = [{"text": f"{row['prompt']} {row['answer']}."} for row in rows[240:]]
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    study = {
        "model": {"path": str(HERE / "model")},
        "tasks": [
            {"name": "jsonl", "label": "first", "data": "./a.jsonl", "weight": 2},
            {"name": "jsonl", "label": "second", "data": "./b.jsonl"},
            {
                "name": "perplexity",
                "data": "./texts.jsonl",
                "weight": 0,
                "floor": {"worse_by": 0.02, "limit": 1e6},
            },
        ],
        "objective": "relative",
        "split": {"validation": 0.5},
        "search": {"trials": TRIALS, "chunks": 2},
        "cluster": {"max_concurrent": 2},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    printed = run("launch", folder / "study.yaml", "--out", folder / "study").stdout
    assert "keeps the floor of perplexity on test" in printed or "BREAKS" in printed
    return folder / "study"


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
        assert trial.user_attrs[SCORES] == pytest.approx(own.to_dict())
        gains = own / before - 1
        assert trial.value == pytest.approx((2 * gains["first"] + gains["second"]) / 3)
        lost = before["perplexity"] - own["perplexity"]
        assert is_feasible(trial) == (lost <= 0.0198026)
    assert record.summary.infeasible == sum(not is_feasible(t) for t in record.trials)


def test_status_compare_and_resume(several: Path, run) -> None:
    before = {p: p.read_bytes() for p in sorted((several / "outcomes").iterdir())}
    run("resume", several, "--quiet")
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
    assert all(x["example_id"].startswith("second/") for x in one["fixed"] + one["broken"])
    with pytest.raises(InputError, match="it has first, second, perplexity"):
        find_changes(StudyRecord.read(several), None, None, 0, "third")

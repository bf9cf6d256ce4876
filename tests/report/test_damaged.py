"""Commands on a study whose record is damaged: a sentence that says what to do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import TrialState

from search.study import jobs
from search.study.jobs import BASELINE, TEST_BASELINE, trial_name
from search.study.outcomes import outcome_file, read_outcomes, write_outcomes


@pytest.mark.parametrize("command", ["status", "report", "export", "compare"])
@pytest.mark.parametrize("damage", ["zeros", "garbage", "doubled"])
def test_a_damaged_journal_is_one_sentence(
    make_study, run, tmp_path, command: str, damage: str
) -> None:
    record = make_study(tmp_path / "study", limit=6)
    journal = record.folder / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    middle = len(lines) // 2
    bad = {"zeros": b"\0" * 400 + b"\n", "garbage": b"{]\n", "doubled": lines[middle]}[damage]
    journal.write_bytes(b"".join([*lines[:middle], bad, *lines[middle:]]))
    words = [command, record.folder, *(["--out", tmp_path / "m"] if command == "export" else [])]
    code, _, err = run(*words)
    assert code == 2, err
    assert err.count("\n") == 1, "one sentence and no traceback"
    assert "study.journal" in err and "laser-search resume" in err
    assert not (tmp_path / "m").exists()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("which", "whose"),
    [
        ("baseline", "baseline"),
        ("winner", "winner"),
        ("test-baseline", "baseline"),
        ("test-winner", "winner"),
    ],
)
def test_damaged_outcomes_of_a_verdict_are_said_before_resume_makes_them_again(
    make_study, run, tmp_path, which: str, whose: str
) -> None:
    record = make_study(tmp_path / "study", trials=12)
    winner = record.summary.winner
    assert winner is not None
    assert not record.notices, "a sound study has nothing to say"
    name = {
        "baseline": BASELINE,
        "winner": trial_name(winner.number),
        "test-baseline": TEST_BASELINE,
        "test-winner": jobs.test_name(winner.number),
    }[which]
    flip(outcome_file(record.folder, name))
    sentence = f"outcomes/{name}.parquet, which holds answers of the {whose}, is damaged"
    code, out, _ = run("status", record.folder)
    assert code == 0
    assert sentence in out
    assert "laser-search resume evaluates them again" in out
    code, out, _ = run("status", record.folder, "--json")
    assert sentence in json.loads(out)["notices"][0]
    assert run("report", record.folder)[0] == 0
    page = (record.folder / "report.html").read_text()
    assert sentence in page
    assert str(tmp_path) not in page, "a report may be published"


def test_disputed_trials_are_named(make_study, run, tmp_path) -> None:
    record = make_study(tmp_path / "study", trials=12)
    wrong = [trial for trial in record.trials if trial.state == TrialState.COMPLETE][1:3]
    for trial in wrong:
        known = (record.identity.study_id, trial.effect)
        found = read_outcomes(record.folder, trial_name(trial.number), *known)
        write_outcomes(record.folder, replace(found, score=found.score + 1))
    sentence = f"trials {wrong[0].number}, {wrong[1].number} cannot be used"
    code, out, _ = run("status", record.folder)
    assert code == 0
    assert sentence in out
    facts = json.loads(run("status", record.folder, "--json")[1])
    assert facts["disputed"] == [trial.number for trial in wrong]
    assert sentence in facts["notices"][0]
    assert run("report", record.folder)[0] == 0
    assert sentence in (record.folder / "report.html").read_text()

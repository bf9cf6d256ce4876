"""What a study records of a trial is what its outcome file says, or it is not used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from optuna.trial import TrialState

from search.study.disputes import DISPUTED, disputed
from search.study.jobs import BASELINE, trial_name
from search.study.journal import JOURNAL
from search.study.outcomes import outcome_file, read_outcomes

CREATE_TRIAL = 4


def states(study) -> dict[int, str]:
    return {trial.number: trial.state.name for trial in study.trials()}


def without_sums(journal: Path) -> list[dict[str, object]]:
    """The lines as a version wrote them that kept no sums."""
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:
        line.pop("sum", None)
    return lines


def write_lines(journal: Path, lines: list[dict[str, object]]) -> None:
    journal.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))


def test_a_whole_study_is_contradicted_by_nothing(tmp_path: Path, open_study, drive) -> None:
    drive(open_study(tmp_path), 12)
    assert set(states(open_study(tmp_path)).values()) <= {"COMPLETE", "RUNNING"}


def test_a_line_that_came_twice_in_an_old_journal_moves_no_score(
    tmp_path: Path, open_study, drive
) -> None:
    """All later trials would have the scores of their neighbours."""
    study = open_study(tmp_path)
    drive(study, 12)
    scores = {t.effect: t.values[0] for t in study.trials() if t.values}
    journal = tmp_path / JOURNAL
    lines = without_sums(journal)
    begun = [i for i, line in enumerate(lines) if line["op_code"] == CREATE_TRIAL]
    lines.insert(begun[3], lines[begun[3]])
    write_lines(journal, lines)
    found = open_study(tmp_path)
    used = [t for t in found.trials() if t.state == TrialState.COMPLETE]
    assert len(used) == 4, "those before the line"
    assert all(scores[t.effect] == t.values[0] for t in used)
    wrong = [t for t in found.trials() if t.failure == DISPUTED]
    assert len(wrong) == len(scores) - 4, "and those after it are said"
    assert {t.reason for t in wrong} == {"its outcome file has another cut than the study's record"}


@pytest.mark.parametrize(("key", "word"), [("effect", "cut"), ("log_loss", "log-loss")])
def test_a_record_that_was_changed_is_a_failure_with_its_reason(
    tmp_path: Path, open_study, drive, key: str, word: str
) -> None:
    study = open_study(tmp_path)
    drive(study, 8)
    best = max((t for t in study.trials() if t.values), key=lambda t: t.values[0])
    journal = tmp_path / JOURNAL
    lines = without_sums(journal)
    other = "3.fc_out=keep-top:1" if key == "effect" else 9.0
    touched = 0
    created = -1
    for line in lines:
        created += line["op_code"] == CREATE_TRIAL
        own = created if line["op_code"] == CREATE_TRIAL else line.get("trial_id")
        attributes = line.get("user_attr") or line.get("user_attrs") or {}
        if own == best.number and key in attributes:
            attributes[key] = other
            touched += 1
    assert touched, "the test changes nothing"
    write_lines(journal, lines)
    found = open_study(tmp_path)
    trial = found.trials()[best.number]
    assert trial.state == TrialState.FAIL
    assert trial.reason == (f"its outcome file has another {word} than the study's record")
    winner = found.chosen().winner
    assert winner is not None, "seven of eight trials are as they were"
    assert winner.number != best.number


@pytest.mark.parametrize("which", ["baseline", "winner"])
@pytest.mark.parametrize("place", [b"PAR1", b"laser-search"], ids=["page", "footer"])
def test_a_damaged_outcome_file_that_the_verdict_needs_is_made_again(
    tmp_path: Path, open_study, make_config, drive, which: str, place: bytes
) -> None:
    """A flipped bit in what the file says of itself is damage, too, and no contradiction."""
    config = make_config(trials=6)
    study = open_study(tmp_path, config)
    drive(study)
    winner = study.chosen().winner
    assert winner is not None, "the landscape has compositions that beat the baseline"
    name = BASELINE if which == "baseline" else trial_name(winner.number)
    effect = "" if which == "baseline" else winner.effect
    path = outcome_file(tmp_path, name)
    whole = path.read_bytes()
    at = whole.find(place) + len(place) + 4
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])

    again = open_study(tmp_path, config)
    assert set(states(again).values()) == {"COMPLETE"}
    assert drive(again) == [effect], "one evaluation runs again, and no other"
    found = read_outcomes(tmp_path, name, again.identity.study_id, effect)
    assert found is not None
    assert again.spent == 6
    assert again.chosen().winner.number == winner.number


def test_no_flipped_bit_of_an_outcome_file_contradicts_its_trial(
    tmp_path: Path, open_study, drive
) -> None:
    """A damaged file is missing; were it a contradiction, the winner would be another one."""
    study = open_study(tmp_path)
    drive(study, 4)
    trial = next(t for t in study.trials() if t.values)
    path = outcome_file(tmp_path, trial_name(trial.number))
    whole = path.read_bytes()
    footer = int.from_bytes(whole[-8:-4], "little") + 8
    assert footer > 1000, "the footer says what was evaluated"
    for at in range(len(whole) - footer, len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
        found = disputed([trial], tmp_path, study.identity.study_id)
        assert not found, f"byte {at} of {len(whole)}: {found}"

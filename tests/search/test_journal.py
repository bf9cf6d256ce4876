"""A journal in which a line changed, went or came twice: said, and mended by a resume."""

from __future__ import annotations

import json
import random
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from search.study.journal import JOURNAL, Link, find_damage, mend_journal
from search.study.storages import EnduringJournal, open_storage
from tasks.errors import InputError


def rows(study) -> list[tuple[object, ...]]:
    return [(t.number, t.state, t.score, t.params, t.effect) for t in study.trials()]


@pytest.fixture
def made(tmp_path: Path, make_config, open_study, drive):
    """A study of 12 random trials, and its rows."""
    config = make_config(trials=12, strategy="random")
    study = open_study(tmp_path, config)
    drive(study)
    return config, rows(study)


def lines_of(folder: Path) -> list[bytes]:
    return (folder / JOURNAL).read_bytes().splitlines(keepends=True)


def delete(lines: list[bytes], at: int) -> None:
    del lines[at]


def double(lines: list[bytes], at: int) -> None:
    lines.insert(at, lines[at])


def swap(lines: list[bytes], at: int) -> None:
    lines[at : at + 2] = [lines[at + 1], lines[at]]


def zeros(lines: list[bytes], at: int) -> None:
    lines[at] = b"\0" * len(lines[at])


def garbage(lines: list[bytes], at: int) -> None:
    lines.insert(at, b"\xff\xfe garbage\n")


def other_value(lines: list[bytes], at: int) -> None:
    log = json.loads(lines[at])
    log["worker_id"] = "x"
    lines[at] = json.dumps(log, separators=(",", ":")).encode() + b"\n"


def bare(lines: list[bytes], at: int) -> None:
    log = json.loads(lines[at])
    log.pop("sum", None)
    lines[at] = json.dumps(log, separators=(",", ":")).encode() + b"\n"


@pytest.mark.parametrize("harm", [delete, double, swap, zeros, garbage, other_value, bare])
@pytest.mark.parametrize("where", ["create", "middle"])
def test_a_harmed_line_is_said_and_a_resume_ends_as_if_nothing_had_happened(
    tmp_path: Path, made, open_study, drive, harm, where
) -> None:
    config, whole = made
    lines = lines_of(tmp_path)
    creations = [i for i, line in enumerate(lines) if b'"op_code":4' in line]
    at = creations[6] if where == "create" else creations[6] + 1
    harm(lines, at)
    harmed = b"".join(lines)
    (tmp_path / JOURNAL).write_bytes(harmed)
    with pytest.raises(InputError) as error:
        open_storage(tmp_path, None)
    said = str(error.value)
    assert f"{JOURNAL} is damaged at line {at + 1 + (harm is double)}" in said
    assert "laser-search resume" in said
    assert (tmp_path / JOURNAL).read_bytes() == harmed, "looking changes nothing"
    notice = mend_journal(tmp_path)
    assert "trials begun before it are kept" in notice
    assert (tmp_path / f"{JOURNAL}.damaged").read_bytes() == harmed
    study = open_study(tmp_path, config)
    kept = len(study.trials())
    assert 6 <= kept <= 7
    evaluated = drive(study)
    assert evaluated == [], "every result came from its outcome file"
    assert rows(study) == whole
    assert mend_journal(tmp_path) == ""


def test_no_flipped_bit_of_a_journal_passes(tmp_path: Path, made) -> None:
    path = tmp_path / JOURNAL
    data = path.read_bytes()
    assert find_damage(path) is None
    for bit in random.Random(0).sample(range(8 * (len(data) - 1)), 400):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(changed))
        assert find_damage(path) is not None, bit


def test_a_second_damage_is_kept_beside_the_first(tmp_path: Path, made) -> None:
    for name in (f"{JOURNAL}.damaged", f"{JOURNAL}.damaged-2"):
        lines = lines_of(tmp_path)
        lines[-2] = b"{}\n"
        (tmp_path / JOURNAL).write_bytes(b"".join(lines))
        mend_journal(tmp_path)
        assert (tmp_path / name).is_file()


def test_optuna_s_own_reader_and_the_dashboard_s_notes_are_welcome(
    tmp_path: Path, made, open_study
) -> None:
    config, whole = made
    storage = JournalStorage(JournalFileBackend(str(tmp_path / JOURNAL)))
    (name,) = (study.study_name for study in storage.get_all_studies())
    theirs = optuna.load_study(study_name=name, storage=storage)
    assert len(theirs.trials) == len(whole)
    storage.set_study_system_attr(theirs._study_id, "dashboard:note", "a remark")
    assert find_damage(tmp_path / JOURNAL) is None
    ours = open_study(tmp_path, config)
    assert rows(ours) == whole
    assert find_damage(tmp_path / JOURNAL) is None


def test_a_journal_of_an_earlier_version_goes_on_and_is_covered_from_then_on(
    tmp_path: Path, made, open_study
) -> None:
    config, whole = made
    lines = lines_of(tmp_path)
    for at in range(len(lines)):
        bare(lines, at)
    (tmp_path / JOURNAL).write_bytes(b"".join(lines))
    study = open_study(tmp_path, config)
    assert rows(study) == whole
    later = lines_of(tmp_path)
    assert len(later) > len(lines), "opening it wrote something"
    assert find_damage(tmp_path / JOURNAL) is None
    double(later, 5)
    (tmp_path / JOURNAL).write_bytes(b"".join(later))
    assert find_damage(tmp_path / JOURNAL).line == len(lines) + 2


def test_scores_of_chunks_wait_for_what_is_recorded_next(
    tmp_path: Path, make_config, open_study, evaluation
) -> None:
    config = make_config(trials=1, strategy="random")
    study = open_study(tmp_path, config)
    baseline = study.next_job()
    study.finish(baseline, evaluation(study, baseline))
    job, before = study.next_job(), lines_of(tmp_path)
    for step in (1, 2):
        with study.later():
            study.report(job, step, 0.25)
    assert lines_of(tmp_path) == before, "nothing was flushed"
    assert study.trials()[0].steps == {1: 0.25, 2: 0.25}
    study.finish(job, evaluation(study, job))
    assert open_study(tmp_path, config).trials()[0].steps == {1: 0.25, 2: 0.25}
    assert not find_damage(tmp_path / JOURNAL)


@pytest.mark.parametrize("group", ["together", "later", None])
def test_notes_that_arrive_between_our_lines_change_no_trial(
    tmp_path: Path, make_config, open_study, evaluation, monkeypatch, group
) -> None:
    """After every line of ours, written or waiting, the dashboard writes one of its own."""
    config = make_config(trials=6, strategy="random")
    study = open_study(tmp_path, config)
    theirs = JournalStorage(JournalFileBackend(str(tmp_path / JOURNAL)))
    (known,) = theirs.get_all_studies()
    append = EnduringJournal.append_logs

    def noted(journal: EnduringJournal, logs: list[dict[str, Any]]) -> None:
        append(journal, logs)
        theirs.set_study_system_attr(known._study_id, "dashboard:note", str(logs))

    monkeypatch.setattr(EnduringJournal, "append_logs", noted)
    within = nullcontext if group is None else getattr(study, group)
    done = True
    while done:
        with within():
            done = (job := study.next_job()) is not None
            if done:
                study.finish(job, evaluation(study, job))
    monkeypatch.undo()
    with study.together():
        study.note_wall()
    seen = rows(study)
    assert len(seen) == 6
    assert find_damage(tmp_path / JOURNAL) is None
    assert rows(open_study(tmp_path, config)) == seen


def test_a_note_that_arrives_just_before_a_flush_is_read(tmp_path: Path, open_study) -> None:
    study = open_study(tmp_path)
    theirs = JournalStorage(JournalFileBackend(str(tmp_path / JOURNAL)))
    (known,) = theirs.get_all_studies()
    with study.together():
        study.note_wall()
        theirs.set_study_system_attr(known._study_id, "dashboard:note", "a remark")
    ours = study._stored._storage.get_study_system_attrs(known._study_id)
    assert ours["dashboard:note"] == "a remark"


def test_what_this_process_wrote_in_a_group_is_not_read_back(
    tmp_path: Path, make_config, open_study, evaluation, monkeypatch
) -> None:
    study = open_study(tmp_path, make_config(trials=6, strategy="random"))
    checked: list[bytes] = []
    check = Link.check
    monkeypatch.setattr(Link, "check", lambda own, line: checked.append(line) or check(own, line))
    done = True
    while done:
        with study.together():
            done = (job := study.next_job()) is not None
            if done:
                study.finish(job, evaluation(study, job))
    assert study.spent == 6
    assert not checked

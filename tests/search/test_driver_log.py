"""What a study says of drivers that are no more."""

from __future__ import annotations

from pathlib import Path

from search.report.standing import standing, standing_facts
from search.study.driver_log import FILE, last_end, note_begin, note_end
from search.study.lock import driver_lock
from search.study.summary import summarise


def test_status_says_why_the_last_driver_stopped(tmp_path: Path, open_study, drive) -> None:
    study = open_study(tmp_path)
    drive(study, limit=5)
    summary = summarise(study.trials(), study.baseline, study.budget, study.objective)
    assert "driver: none; continue" in standing(tmp_path, summary)[0]
    note_begin(tmp_path)
    assert "stopped: it ended without a word (host" in standing(tmp_path, summary)[0]
    note_end(tmp_path, "the disk is full")
    assert "driver: none; the last one stopped: the disk is full; continue" in "".join(
        standing(tmp_path, summary)
    )
    assert standing_facts(tmp_path, summary)["last_end"] == "the disk is full"
    with driver_lock(tmp_path):
        note_begin(tmp_path)
        assert standing(tmp_path, summary)[0].startswith("driver: host")
        assert standing_facts(tmp_path, summary)["last_end"] is None
    note_end(tmp_path, "")
    assert last_end(tmp_path) == ""


def test_a_torn_line_says_nothing(tmp_path: Path) -> None:
    note_end(tmp_path, "reason")
    with (tmp_path / FILE).open("a") as stream:
        stream.write('{"time": 1')
    assert last_end(tmp_path) == ""

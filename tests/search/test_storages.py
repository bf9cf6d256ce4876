"""What a full disk, a database that goes away and lost acknowledgements do to a study: nothing."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from search.study.journal import JOURNAL, mend_journal
from search.study.storages import StorageLost


@contextmanager
def quota(size_bytes: int) -> Iterator[None]:
    """No file may grow beyond `size_bytes`, by the kernel's word."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def rows(study) -> list[tuple[object, ...]]:
    return [(t.number, t.state, t.score, t.params, t.effect) for t in study.trials()]


@pytest.fixture(params=["line by line", "in groups"])
def work_off(request, evaluation) -> Callable[..., None]:
    """Work off a study's jobs, every line or every decision flushed by itself."""

    def work(study, limit: int = 1000) -> None:
        group = study.together if request.param == "in groups" else nullcontext
        for _ in range(limit):
            with group():
                job = study.next_job()
            if job is None:
                return
            with group():
                study.finish(job, evaluation(study, job))

    return work


def test_a_file_that_may_not_grow_loses_nothing(
    tmp_path: Path, make_config, open_study, drive, work_off
) -> None:
    config = make_config(trials=12, strategy="random")
    whole = open_study(tmp_path / "whole", config)
    drive(whole)
    folder = tmp_path / "full"
    study = open_study(folder, config)
    work_off(study, limit=4)
    for extra in (0, 30, 75, 300, 1000):  # at the start, within and between lines
        before = rows(study)
        with quota((folder / JOURNAL).stat().st_size + extra):
            with pytest.raises(StorageLost, match=r"study.journal cannot be written .*; "):
                work_off(study)
            refused = (folder / JOURNAL).read_bytes()
        assert refused.endswith(b"\n"), "the torn line was taken back"
        with pytest.raises(StorageLost):
            work_off(study)
        assert (folder / JOURNAL).read_bytes() == refused, "nothing is written behind a gap"
        mend_journal(folder)
        study = open_study(folder, config)
        assert rows(study)[: len(before) - 1] == before[:-1]
    work_off(study)
    assert rows(study) == rows(whole)


def test_outcomes_that_cannot_be_written_leave_the_trial_in_flight(
    tmp_path: Path, open_study, drive, evaluation
) -> None:
    study = open_study(tmp_path)
    drive(study, limit=3)
    job = study.next_job()
    with quota(100), pytest.raises(StorageLost, match="cannot be written"):
        study.finish(job, evaluation(study, job))
    assert study.trials()[job.number].state == TrialState.RUNNING
    again = open_study(tmp_path)
    assert again.next_job() == job


@pytest.fixture
def acknowledgements_get_lost(monkeypatch) -> Callable[[int], None]:
    """Every n-th commit is made, and its acknowledgement lost."""

    def lose(every: int) -> None:
        commit, count = Session.commit, 0

        def commit_and_fail(self) -> None:
            nonlocal count
            commit(self)
            count += 1
            if count % every == 0:
                raise OperationalError("COMMIT", {}, ConnectionError("the server went away"))

        monkeypatch.setattr(Session, "commit", commit_and_fail)

    return lose


@pytest.mark.slow
def test_what_was_recorded_though_nobody_said_so_is_not_recorded_twice(
    tmp_path: Path, make_config, open_study, drive, acknowledgements_get_lost
) -> None:
    settings = {"trials": 5, "strategy": "random"}
    whole = open_study(tmp_path / "whole", make_config(**settings))
    drive(whole)
    config = make_config(storage=f"sqlite:///{tmp_path / 'studies.db'}", **settings)
    study = open_study(tmp_path / "database", config)
    acknowledgements_get_lost(3)
    drive(study)
    assert rows(study) == rows(whole)
    assert [t.state for t in study.trials()] == [TrialState.COMPLETE] * 5

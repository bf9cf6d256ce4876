"""A worker whose job ends is given the next one, and both are flushed to the disk at once."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.tune_search import StudyScheduler, StudySearch
from cluster.watchdog import Watchdog
from cluster.worker import StudyWorker
from search.demo.study import demo_config
from search.plan import make_plan
from search.study.driven_study import DrivenStudy
from search.study.identity import Identity
from search.study.jobs import BASELINE, Job
from search.study.outcomes import Evaluation, outcome_bytes
from search.study.storages import EnduringJournal, StorageLost
from search.study.subject import Subject
from tasks.base import Outcome

TRIALS = 3


def opened(folder: Path, **search: Any) -> DrivenStudy:
    config = demo_config(folder, TRIALS)
    data = config.model_dump(mode="json")
    data["search"] |= {"strategy": "random", "pruner": "none", **search}
    plan = make_plan(type(config).model_validate(data))
    identity = Identity("a-study", "2026-01-01", {}, "w", "c", "e", "s")
    return DrivenStudy.open(
        Subject(folder, identity, plan.config, plan.space, plan.max_ranks, plan.objective)
    )


def finished(study: DrivenStudy, job: Job) -> dict[str, Any]:
    """What a worker says of a job that is done."""
    outcomes = tuple(Outcome(f"q{n}", f"g{n}", n % 2, -1.0, "x") for n in range(4))
    evaluation = Evaluation(
        job.name, study.identity.study_id, str(job.composition), job.effect, job.part,
        0.5, 1.0, {"total": 0.0}, outcomes,
    )  # fmt: skip
    return {"score": 0.5, "ended": True, "finished": True, "outcomes": outcome_bytes(evaluation)}


class Driven:
    """A study, its searcher, and one worker on one Tune trial that notes what it is given."""

    def __init__(self, folder: Path, capacity: int = 1, **search: Any) -> None:
        self.study = opened(folder, **search)
        self.capacity = capacity
        self.search = StudySearch(self.study, Watchdog(None), lambda: self.capacity)
        self.scheduler = StudyScheduler(self.search, self.study)
        self.given: list[str] = []
        give = SimpleNamespace(remote=lambda job: self.given.append(json.loads(job)["name"]))
        state = SimpleNamespace(ray_actor=SimpleNamespace(give=give))
        self.trial = SimpleNamespace(trial_id="t0", temporary_state=state)
        assert isinstance(self.search.suggest("t0"), dict)

    @property
    def job(self) -> Job:
        return self.search.jobs["t0"]

    def says(self, **result: Any) -> str:
        return self.scheduler.on_trial_result(None, self.trial, result)

    def finishes(self) -> str:
        return self.says(**finished(self.study, self.job))


@pytest.fixture
def flushes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of lines of each write of the journal."""
    found: list[int] = []
    append = EnduringJournal._append

    def noted(journal: EnduringJournal, logs: list[dict[str, Any]]) -> Any:
        found.append(len(logs))
        return append(journal, logs)

    monkeypatch.setattr(EnduringJournal, "_append", noted)
    return found


def test_a_worker_goes_on_with_the_next_job_after_one_flush(tmp_path: Path, flushes) -> None:
    driven = Driven(tmp_path)
    assert driven.job.name == BASELINE
    for _ in range(TRIALS):
        flushes.clear()
        assert driven.finishes() == "CONTINUE"
        assert len(flushes) == 1
    assert driven.given == ["trial-00000", "trial-00001", "trial-00002"]
    while driven.finishes() == "CONTINUE":  # what is asked on test
        pass
    driven.search.on_trial_complete("t0", {"score": 0.5})
    assert [t.state.name for t in opened(tmp_path).trials()] == ["COMPLETE"] * TRIALS


def test_an_error_ends_a_trial_and_not_its_worker(tmp_path: Path) -> None:
    driven = Driven(tmp_path)
    driven.finishes()
    assert driven.says(score=float("nan"), ended=True, error="no such thing") == "CONTINUE"
    assert driven.job.name == "trial-00001"
    assert driven.study.trials()[0].reason == "no such thing"


def test_a_trial_that_is_given_up_makes_room_for_the_next_one(tmp_path: Path, monkeypatch) -> None:
    driven = Driven(tmp_path)
    driven.finishes()
    monkeypatch.setattr(driven.study, "report", lambda *_: False)
    assert driven.says(score=0.1, step=1) == "CONTINUE"
    assert driven.job.name == "trial-00000"
    monkeypatch.setattr(driven.study, "report", lambda *_: True)
    assert driven.says(score=0.1, step=2) == "CONTINUE"
    assert driven.job.name == "trial-00001"
    assert driven.study.trials()[0].state.name == "PRUNED"


def test_a_worker_that_is_too_many_gets_no_further_job(tmp_path: Path) -> None:
    driven = Driven(tmp_path)
    driven.capacity = 0
    assert driven.finishes() == "STOP"
    assert driven.given == []
    driven.search.on_trial_complete("t0", {"score": 0.5})
    assert not driven.study.running()


def test_a_worker_that_cannot_be_reached_gets_its_next_job_with_a_tune_trial(tmp_path) -> None:
    driven = Driven(tmp_path)
    driven.trial.temporary_state.ray_actor = None
    assert driven.finishes() == "STOP"
    driven.search.on_trial_complete("t0", {"score": 0.5})
    again = driven.search.suggest("t1")
    assert isinstance(again, dict)
    assert json.loads(again["job"])["name"] == "trial-00000"


def test_what_a_worker_dies_of_is_of_the_job_that_it_was_given_last(tmp_path: Path) -> None:
    driven = Driven(tmp_path)
    driven.finishes()
    driven.finishes()
    driven.search.on_trial_complete("t0", None, error=True)
    (again,) = (driven.search.suggest("t1"),)
    assert isinstance(again, dict)
    assert json.loads(again["job"])["name"] == "trial-00001"


def test_nothing_is_given_that_could_not_be_recorded(tmp_path: Path, monkeypatch) -> None:
    driven = Driven(tmp_path)

    def full(journal: EnduringJournal, logs: list[dict[str, Any]]) -> None:
        raise StorageLost("the disk is full")

    monkeypatch.setattr(EnduringJournal, "_append", full)
    assert driven.finishes() == "STOP"
    assert driven.given == []
    assert driven.study.stopped == "the disk is full"


def test_a_worker_that_cannot_undo_its_edits_ends() -> None:
    worker = StudyWorker.__new__(StudyWorker)
    worker._failure = worker._broken = worker._readying = worker._job = None

    def close() -> None:
        raise RuntimeError("the device is lost")

    worker._run = SimpleNamespace(close=close)
    worker.give("null")
    with pytest.raises(RuntimeError, match="the device is lost"):
        worker.step()

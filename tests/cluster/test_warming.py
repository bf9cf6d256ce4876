"""While a study waits for its baseline or screen, workers for its trials get ready for them."""

from __future__ import annotations

import json
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.tune_search import StudyScheduler, StudySearch
from cluster.worker import StudyWorker
from search.cuts.composition import Composition
from search.study.jobs import Job


class Waiting(SimpleNamespace):
    """A study with a baseline and a screen to be made, then trials without end."""

    def next_job(self) -> Job | None:
        return self.jobs.pop(0) if self.jobs else None

    def together(self) -> Any:
        return nullcontext()

    later = together

    def running(self) -> list[str]:
        return ["baseline"]


def job(name: str) -> Job:
    return Job(name, Composition(), "", "validation")


def search_of(budget: int, workers: int) -> tuple[StudySearch, Waiting]:
    study = Waiting(
        jobs=[job("baseline"), job("screen")],
        waits=True, goes_on=True, budget=budget, stopped="", draining=False, told=[],
    )  # fmt: skip
    study.take = lambda job, outcomes: study.told.append(job.name) or True
    return StudySearch(study, SimpleNamespace(overdue=lambda _: ""), lambda: workers), study


def suggested(search: StudySearch, count: int) -> list[str | None]:
    """What Tune is given: names of jobs, "load", or None."""
    found: list[str | None] = []
    for number in range(count):
        asked = search.suggest(f"t{number}")
        if not isinstance(asked, dict):
            found.append(None)
            continue
        data = json.loads(asked["job"])
        found.append("load" if data is None else data["name"])
    return found


def test_as_many_load_as_there_will_be_trials_for() -> None:
    search, _ = search_of(budget=100, workers=5)
    assert suggested(search, 7) == ["baseline", "screen", "load", "load", "load", None, None]
    search, _ = search_of(budget=3, workers=5)
    assert suggested(search, 5) == ["baseline", "screen", "load", None, None]
    search, _ = search_of(budget=100, workers=2)
    assert suggested(search, 4) == ["baseline", "screen", None, None]


def test_what_gets_ready_is_told_to_nobody_and_is_asked_twice_a_worker_at_most() -> None:
    search, study = search_of(budget=100, workers=3)
    assert suggested(search, 3) == ["baseline", "screen", "load"]
    search.on_trial_complete("t2", {"score": 0.0, "finished": True})
    search.on_trial_complete("t0", {"score": 0.5, "finished": True})
    assert study.told == ["baseline"]
    for number in range(4, 9):
        asked = {"job": "null"}
        assert search.suggest(f"t{number}") == asked, "the worker of the baseline has nothing to do"
        search.on_trial_complete(f"t{number}", None, error=True)
    assert search.suggest("t9") is None, "each of the three has had its chance"
    study.waits, study.jobs = False, [job("trial-00000")]
    assert suggested(search, 1) == ["trial-00000"]


@pytest.mark.parametrize("goes_on", [True, False])
def test_nobody_gets_ready_for_trials_that_will_not_come(goes_on: bool) -> None:
    search, study = search_of(budget=100, workers=3)
    suggested(search, 3)
    study.goes_on = goes_on
    heard = StudyScheduler(search, study).on_trial_result(
        None, SimpleNamespace(trial_id="t2"), {"score": 0.0, "step": 0, "done": False}
    )
    assert heard == ("CONTINUE" if goes_on else "STOP")


def test_a_worker_without_a_job_records_chunk_by_chunk_until_nothing_is_left() -> None:
    worker = StudyWorker.__new__(StudyWorker)
    worker._broken = worker._job = worker._readying = worker._run = worker._failure = None
    worker._evaluator = SimpleNamespace(get_ready=lambda: iter([1, 0]))
    first, last = worker.step(), worker.step()
    assert not first["done"] and last["done"]
    assert first.keys() == last.keys(), "Tune wants the same numbers of every result"
    worker.reset_config({"job": "null"})
    worker._evaluator = SimpleNamespace(get_ready=lambda: iter(()))
    assert worker.step()["done"]

"""While a study waits for its baseline or screen, workers for its trials load the model."""

from __future__ import annotations

import json
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

from cluster.tune_search import StudySearch
from search.cuts.composition import Composition
from search.study.jobs import Job


class Waiting(SimpleNamespace):
    """A study with a baseline and a screen to be made, then trials without end."""

    def next_job(self) -> Job | None:
        return self.jobs.pop(0) if self.jobs else None

    def together(self) -> Any:
        return nullcontext()

    def running(self) -> list[str]:
        return ["baseline"]


def job(name: str) -> Job:
    return Job(name, Composition(), "", "validation")


def search_of(budget: int, workers: int) -> tuple[StudySearch, Waiting]:
    study = Waiting(
        jobs=[job("baseline"), job("screen")],
        waits=True, budget=budget, stopped="", draining=False, told=[],
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


def test_one_that_has_loaded_is_told_to_nobody_and_loads_once() -> None:
    search, study = search_of(budget=100, workers=3)
    assert suggested(search, 3) == ["baseline", "screen", "load"]
    search.on_trial_complete("t2", {"score": 0.0, "finished": True})
    search.on_trial_complete("t0", {"score": 0.5, "finished": True})
    assert study.told == ["baseline"]
    assert search.suggest("t4") == {"job": "null"}, "the worker of the baseline has nothing to do"
    search.on_trial_complete("t4", None, error=True)
    assert search.suggest("t5") is None, "all three have loaded"
    study.waits, study.jobs = False, [job("trial-00000")]
    assert suggested(search, 1) == ["trial-00000"]

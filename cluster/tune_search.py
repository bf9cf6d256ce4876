"""The thin layer between a study and Ray Tune: the study decides, Tune executes.

Tune's own restore is not used: every start is a fresh run, and its trials are disposable.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from cluster.privates import actor_of
from cluster.watchdog import Watchdog
from cluster.worker import METRIC
from search.study.driven_study import DrivenStudy
from search.study.jobs import Job
from search.study.storages import StorageLost


class StudySearch(Searcher):  # type: ignore[misc]  # Ray ships no types
    """Hands a study's jobs to Tune and what became of them back to the study.

    A worker keeps its Tune trial: when a job ends it is given the next one at once (`follow`). A
    Tune trial of its own for each job costs the driver much of its time, and the worker waits.
    """

    def __init__(self, study: DrivenStudy, watchdog: Watchdog, capacity: Callable[[], int]) -> None:
        """The study is open and locked by this process; `watchdog` knows whom it killed.

        `capacity` says how many trials may be in flight now.
        """
        super().__init__(METRIC, "max")
        self._capacity = capacity
        self._study = study
        self._watchdog = watchdog
        self.jobs: dict[str, Job] = {}
        self._readying: set[str] = set()
        self._readied = 0
        self.deaths: dict[str, str] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        # Tune pickles its searcher for a restore that is never used; a study cannot travel.
        return (Searcher, (METRIC, "max"))

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next job as a Tune configuration; None while all workers have one.

        While the study waits for its baseline or screen, workers for its trials get ready: they
        load the model and record what trials begin from. Twice as often as there are workers, since
        who has made a piece of the screen has recorded nothing, and Tune picks whom it wants.
        """
        capacity = self._capacity()
        if self._at_once >= capacity:
            return None
        with self.recording():
            job = self._study.next_job()
            if job is not None:
                self.jobs[trial_id] = job
                return {"job": _text(job)}
        workers = min(capacity, self._study.budget)
        if self._study.waits and self._at_once < workers and self._readied < 2 * workers:
            self._readied += 1
            self._readying.add(trial_id)
            return {"job": json.dumps(None)}
        over = self._study.stopped or self._study.draining or not self._study.running()
        return str(Searcher.FINISHED) if over else None

    def follow(self, trial: Any, result: dict[str, Any]) -> bool:
        """Tell the study what became of a Tune trial's job, and give its worker the next one.

        Both are flushed to the disk at once. Returns whether there was a next one: else the Tune
        trial is to end.
        """
        job, following = self.jobs.pop(trial.trial_id), None
        worker = actor_of(trial)
        with self.recording():
            self._tell(job, result)
            if worker is not None and self._at_once < self._capacity():
                following = self._study.next_job()
        if worker is None or following is None or self._study.stopped:
            return False
        self.jobs[trial.trial_id] = following
        # Before Tune asks for its next step: an actor does what it is asked in that order.
        worker.give.remote(_text(following))
        self._watchdog.begin(trial)
        return True

    @property
    def _at_once(self) -> int:
        """How many workers have something to do."""
        return len(self.jobs) + len(self._readying)

    @contextmanager
    def recording(self, *, later: bool = False) -> Iterator[None]:
        """Stop the study, in whose record the trials in flight stay, if nothing can be recorded.

        `later`: what is recorded need not be on the disk before what is recorded next.
        """
        try:
            with self._study.later() if later else self._study.together():
                yield
        except StorageLost as error:
            self._study.stopped = str(error)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the study of a worker that died or cannot be built; of the rest it knows."""
        if trial_id in self._readying:  # whatever became of it, the next job tells
            self._readying.remove(trial_id)
            return
        if (job := self.jobs.pop(trial_id, None)) is None:
            return
        with self.recording():
            if error or not result or METRIC not in result:
                self._lost(trial_id, job)
            else:
                self._tell(job, result)

    def _lost(self, trial_id: str, job: Job) -> None:
        reason = self.deaths.pop(trial_id, "")
        if overdue := self._watchdog.overdue(trial_id):
            self._study.fail(job, overdue, "timeout")
        else:
            self._study.died(job, reason or "the worker process ended")

    def _tell(self, job: Job, result: dict[str, Any]) -> None:
        if "died" in result:
            self._study.died(job, result["died"], result.get("kind", "worker died"))
        elif "broken" in result:
            self._study.abandon(job, result["broken"])
        elif "error" in result:
            self._study.fail(job, result["error"], result.get("kind", "error"))
        elif result.get("finished"):
            if not self._study.take(job, result.pop("outcomes", None)):
                self._study.died(job, "its outcome file cannot be read")
        else:
            self._study.prune(job)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Intermediate scores reach the study through the scheduler."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study is the memory."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class StudyScheduler(FIFOScheduler):  # type: ignore[misc]
    """Reports chunks to the study, and lets a worker whose job ended go on with the next one."""

    def __init__(self, search: StudySearch, study: DrivenStudy) -> None:
        """`search` knows which job a Tune trial runs."""
        super().__init__()
        self._search = search
        self._study = study

    def __reduce__(self) -> tuple[Any, ...]:
        # As for the searcher: pickled for a restore that is never used.
        return (FIFOScheduler, ())

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Never let a resident actor evict one that is still loading the model."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether the worker goes on: with its job, or with the next one."""
        job = self._search.jobs.get(trial.trial_id)
        if job is None:  # nobody gets ready for trials that will not come
            goes_on = self._study.goes_on
        elif result.get("ended"):
            goes_on = self._search.follow(trial, result)
        else:
            scores = json.loads(result.pop("chunk", "{}"))
            stop = False
            # Of a trial that a kill leaves in flight every chunk is asked again.
            with self._search.recording(later=True):
                stop = self._study.report(job, int(result["step"]), float(result[METRIC]), scores)
            goes_on = not stop or self._search.follow(trial, result)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Keep what Ray says of a worker's death; the searcher hears of it next."""
        error = trial.get_error()
        if error is not None:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            self._search.deaths[trial.trial_id] = " ".join([type(error).__name__, *lines])[:300]


def _text(job: Job) -> str:
    """A job as a worker reads it."""
    return json.dumps(job.to_dict())

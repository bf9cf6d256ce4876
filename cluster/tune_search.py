"""The thin layer between a study and Ray Tune: the study decides, Tune executes.

Tune's own restore is not used: every start is a fresh run, and its trials are disposable.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from cluster.watchdog import Watchdog
from cluster.worker import METRIC
from search.study.driven_study import DrivenStudy
from search.study.jobs import Job
from search.study.storages import StorageLost


class StudySearch(Searcher):  # type: ignore[misc]  # Ray ships no types
    """Hands a study's jobs to Tune and what became of them back to the study."""

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
        if len(self.jobs) + len(self._readying) >= capacity:
            return None
        with self.recording():
            job = self._study.next_job()
            if job is not None:
                self.jobs[trial_id] = job
                return {"job": json.dumps(job.to_dict())}
        workers = min(capacity, self._study.budget)
        at_once = len(self.jobs) + len(self._readying)
        if self._study.waits and at_once < workers and self._readied < 2 * workers:
            self._readied += 1
            self._readying.add(trial_id)
            return {"job": json.dumps(None)}
        over = self._study.stopped or self._study.draining or not self._study.running()
        return str(Searcher.FINISHED) if over else None

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

    def flush(self) -> None:
        """Put on the disk what waits for a next job, where there is none."""
        with self.recording():
            pass

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the study: finished, stopped early, failed, or its worker died."""
        if trial_id in self._readying:  # whatever became of it, the next job tells
            self._readying.remove(trial_id)
            return
        job = self.jobs.pop(trial_id)
        # What an outcome file tells may wait for the next job: one flush less for every trial.
        is_kept = bool(result and result.get("finished"))
        with self.recording(later=is_kept and self._study.goes_on):
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
    """Reports chunks to the study and stops trials that its pruner gives up."""

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
        """Continue or stop after a chunk."""
        job = self._search.jobs.get(trial.trial_id)
        if job is None:  # nobody gets ready for trials that will not come
            is_wanted = self._study.goes_on or result.get("done")
            return str(TrialScheduler.CONTINUE if is_wanted else TrialScheduler.STOP)
        if result.get("done"):
            return str(TrialScheduler.CONTINUE)
        scores = json.loads(result.pop("chunk", "{}"))
        stop = False
        # Of a trial that a kill leaves in flight every chunk is asked again.
        with self._search.recording(later=True):
            stop = self._study.report(job, int(result["step"]), float(result[METRIC]), scores)
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Keep what Ray says of a worker's death; the searcher hears of it next."""
        error = trial.get_error()
        if error is not None:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            self._search.deaths[trial.trial_id] = " ".join([type(error).__name__, *lines])[:300]


class Forgetting(tune.Callback):  # type: ignore[misc]  # Ray ships no types
    """Lets go of what Tune keeps of an ended trial: the study has it.

    Tune holds every trial to the end of the run, with its last result, in which a worker sends the
    outcomes of all examples, and six statistics of each number in it.
    """

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Comes after searcher and scheduler have heard of it."""
        kept = trial.run_metadata
        kept.last_result = {"done": True}  # were it empty, Tune would ask the worker for one
        kept.metric_analysis, kept.metric_n_steps = {}, {}

"""The thin layer between a study and Ray Tune: the study decides, Tune executes.

Tune's own restore is not used: a fresh Tuner is built at every start and its trials are disposable.
"""

from __future__ import annotations

import json
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from cluster.worker import METRIC
from search.study.jobs import Job
from search.study.study import Study


class StudySearch(Searcher):  # type: ignore[misc]  # Ray ships no types
    """Hands a study's jobs to Tune and what became of them back to the study."""

    def __init__(self, study: Study) -> None:
        """The study is open and locked by this process."""
        super().__init__(METRIC, "max")
        self._study = study
        self.jobs: dict[str, Job] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        # Tune pickles its searcher for a restore that is never used; a study cannot travel.
        return (Searcher, (METRIC, "max"))

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next job as a Tune configuration; None while the last ones are in flight."""
        job = self._study.next_job()
        if job is None:
            return None if self._study.running() else str(Searcher.FINISHED)
        self.jobs[trial_id] = job
        return {"job": json.dumps(job.to_dict())}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the study: finished, stopped early, failed, or its worker died."""
        job = self.jobs.pop(trial_id)
        if error or not result or METRIC not in result:
            self._study.died(job, "the worker process ended")
        elif "died" in result:
            self._study.died(job, result["died"])
        elif "broken" in result:
            self._study.abandon(job, result["broken"])
        elif "error" in result:
            self._study.fail(job, result["error"])
        elif result.get("finished"):
            self._finish(job, result)
        else:
            self._study.prune(job)

    def _finish(self, job: Job, result: dict[str, Any]) -> None:
        data = result.pop("outcomes", None)
        evaluation = self._study.evaluation(job, data)
        if evaluation is None:
            self._study.died(job, "its outcome file cannot be read")
        else:
            self._study.finish(job, evaluation)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Intermediate scores reach the study through the scheduler."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study is the memory."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class StudyScheduler(FIFOScheduler):  # type: ignore[misc]
    """Reports chunks to the study and stops trials that its pruner gives up."""

    def __init__(self, search: StudySearch, study: Study) -> None:
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
        if job is None or result.get("done"):
            return str(TrialScheduler.CONTINUE)
        scores = json.loads(result.pop("chunk", "{}"))
        stop = self._study.report(job, int(result["step"]), float(result[METRIC]), scores)
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)

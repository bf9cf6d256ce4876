"""A study run in one process: the reference that a cluster must agree with."""

from __future__ import annotations

from contextlib import closing

from search.evaluation.evaluator import Evaluator
from search.study.driven_study import DrivenStudy
from search.study.jobs import Job


def run_study(study: DrivenStudy, evaluator: Evaluator) -> None:
    """Work off every job of a study, one after the other, and put the model's bytes back."""
    with closing(evaluator):
        while (job := study.next_job()) is not None:
            run_job(study, evaluator, job)


def run_job(study: DrivenStudy, evaluator: Evaluator, job: Job) -> None:
    """Evaluate one job and tell the study what became of it. Raises StorageLost.

    What the evaluation raises is the job's failure; what the study's own record raises is not.
    """
    with closing(evaluator.run(job)) as run:
        while True:
            try:
                progress = next(run, None)
            except Exception as error:  # a composition's failure is a result, not the search's end
                study.fail(job, f"{type(error).__name__}: {error}")
                return
            if progress is None:
                return
            if progress.evaluation is not None:
                study.finish(job, progress.evaluation)
            elif study.report(job, progress.step, progress.score, progress.chunk):
                study.prune(job)
                return

"""One process works off a study: whose failure is whose."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from optuna.trial import TrialState

from search.evaluation.evaluator import Progress
from search.loop import run_job
from search.study.jobs import Job


class Evaluated:
    """An evaluator whose evaluations are made up."""

    def __init__(self, evaluate) -> None:
        self._evaluate = evaluate

    def run(self, job: Job) -> Iterator[Progress]:
        yield Progress(1, 0.5, None, {})
        yield Progress(1, 0.5, self._evaluate(job), {})


def test_an_error_of_the_record_is_no_failed_trial(open_study, evaluation, tmp_path) -> None:
    study = open_study(tmp_path / "study")
    evaluator = Evaluated(lambda job: evaluation(study, job))
    run_job(study, evaluator, study.next_job())
    job = study.next_job()

    def broken() -> None:
        raise KeyError("a fault of the display")

    study.on_change = broken
    with pytest.raises(KeyError, match="of the display"):
        run_job(study, evaluator, job)
    (trial,) = study.trials()
    assert trial.state == TrialState.COMPLETE


def test_an_error_of_the_evaluation_is_a_failed_trial(open_study, evaluation, tmp_path) -> None:
    study = open_study(tmp_path / "study")
    run_job(study, Evaluated(lambda job: evaluation(study, job)), study.next_job())

    def broken(job: Job):
        raise ArithmeticError("no such logarithm")

    run_job(study, Evaluated(broken), study.next_job())
    (trial,) = study.trials()
    assert trial.state == TrialState.FAIL
    assert trial.reason == "ArithmeticError: no such logarithm"

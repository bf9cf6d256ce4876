"""What a worker says of a job that failed: never an exception, which would cost a model load."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from cluster.worker import METRIC, StudyWorker
from search.cuts.composition import Composition
from search.evaluation.predictor import NonFiniteLogits
from search.study.jobs import Job


def too_much() -> None:
    torch.empty(2**50, dtype=torch.float64)  # PyTorch's own words for what no machine has


def raise_(error: Exception) -> None:
    raise error


FAILURES = {
    "out of memory": (too_much, "died", "out of memory"),
    "NaN": (
        lambda: raise_(NonFiniteLogits("3 of 9; the first left h.1")),
        "error",
        "not finite",
    ),
    "a bug": (lambda: raise_(ValueError("no")), "error", None),
    "a machine": (lambda: raise_(OSError(5, "Input/output error")), "died", None),
}


@pytest.fixture
def worker():
    """A worker that has loaded its model, without a Ray around it."""
    made = StudyWorker.__new__(StudyWorker)
    made._broken, made._failure, made._run, made._shares_folder = None, None, None, False
    made._job = Job("trial-00000", Composition(), "", "validation", 0)
    return made


def fails(what: str):
    def run(job):
        FAILURES[what][0]()
        yield

    return SimpleNamespace(run=run)


@pytest.mark.parametrize("what", FAILURES)
def test_a_worker_never_raises_and_says_the_kind(worker, what: str) -> None:
    worker._evaluator = fails(what)
    result = worker.step()
    _, key, kind = FAILURES[what]
    assert result["ended"] and result[METRIC] != result[METRIC]
    assert not result.get("done"), "Tune would end the trial, and nobody be given the next job"
    assert key in result
    assert result.get("kind") == kind

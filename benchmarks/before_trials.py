"""What comes before the first trial, by phase: processor seconds of one process with one thread.

    python benchmarks/before_trials.py STUDY.yaml

Factors that are missing are computed and kept. Then the model is loaded, the unedited one is asked
(`baseline`, with what trials begin from), and the screen is made, piece by piece. Of the last two,
two workers take about half each, see docs/decisions/0040-the-time-before-the-first-trial.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import torch

from search.config import read_config
from search.cuts.composition import Composition
from search.evaluation.evaluator import Evaluator, Hosting, Questions, open_evaluator
from search.opening import storing_of
from search.plan import Plan, make_plan
from search.reuse.activations import GIB, Room
from search.storing import ensure_factors
from search.strategies.singles import screened
from search.study.jobs import Job
from search.study.screening import Screening
from tasks.guarded import Guarded


def main() -> None:
    """Print a line for each phase."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    study: Path = parser.parse_args().study
    torch.set_num_threads(1)
    print(f"{'imports':10} {time.process_time():8.1f} s")
    with timed("plan"):
        plan = make_plan(read_config(study))
    with timed("factors"):
        ensure_factors(plan.source, plan.searched, plan.config.factors, storing_of(plan, {}), "cpu")
    with timed("load"):
        evaluator = opened(plan)
    with closing(evaluator):
        with timed("baseline"):
            evaluator.evaluate(Job("baseline", Composition(), "", "validation"))
        with timed("screen"):
            pieces = [seconds_of(evaluator, job) for job in jobs(plan)]
        print("its pieces", *(f"{seconds:.1f}" for seconds in pieces))


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Print what a phase took."""
    began_s = time.process_time()
    yield
    print(f"{name:10} {time.process_time() - began_s:8.1f} s", flush=True)


def opened(plan: Plan) -> Evaluator:
    """The evaluator of a worker with 2 GiB for activations."""
    config = plan.config
    questions = Questions(Guarded(plan.task), plan.parts, config.search.chunks, plan.objective)
    hosting = Hosting("cpu", config.tokens_per_batch, frozenset(plan.space.matrices), Room(2 * GIB))
    return open_evaluator(plan.source, questions, config.factors, hosting)


def jobs(plan: Plan) -> list[Job]:
    """All pieces of the screen."""
    return list(
        Screening("", plan.objective, lambda: screened(plan.space), lambda name: None).jobs()
    )


def seconds_of(evaluator: Evaluator, job: Job) -> float:
    """Processor seconds of one job."""
    began_s = time.process_time()
    evaluator.evaluate(job)
    return time.process_time() - began_s


if __name__ == "__main__":
    main()

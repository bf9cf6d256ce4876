"""How much evaluation a race saves, and whether it ends at the same choice.

    python benchmarks/racing.py [--seeds 20] [--trials 100] [--chunks 8] [--strategy tpe]
    python benchmarks/racing.py --model ./sst2-run/bert-sst2 --data sst2-dev.tsv

Real studies of the demo's model (or of a classifier that `benchmarks/sst2_bert.py` trained), each
seed with every trial whole, racing with as many trials, and racing until as many examples are
asked. Compositions are evaluated once and remembered, so that 20 seeds cost little more than one;
what a raced trial would have seen is counted in examples. The strategy ``random`` proposes the same
whatever was found, so with it the difference is the race's own; ``tpe`` learns what it is told.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from search.config import StudyConfig, parse_config
from search.demo.study import demo_config
from search.evaluation.evaluator import Evaluator, Progress, Questions, open_evaluator
from search.plan import Plan, make_plan
from search.study.driven_study import DrivenStudy
from search.study.identity import Identity
from search.study.jobs import Job
from search.study.subject import Subject

ID = "racing"


class Remembered:
    """Evaluates each chunk of each composition once. `examples`: those asked for."""

    def __init__(self, evaluator: Evaluator, total: int) -> None:
        self._evaluator = evaluator
        self._total = total
        self._known: dict[tuple[str, str], list[Progress]] = {}
        self.examples = 0

    def run(self, job: Job) -> Iterator[Progress]:
        """The chunks of the evaluator: from memory, and no more of them than are asked for."""
        known = self._known.setdefault((job.part, job.effect), [])
        fresh = self._evaluator.run(job)
        seen = done = 0
        while not known or known[-1].evaluation is None or done < len(known):
            if done == len(known):
                while seen <= done:
                    progress = next(fresh)
                    seen += 1
                known.append(progress)
            progress = known[done]
            done += 1
            if job.number is not None:
                before = sum(len(piece.chunk) for piece in known[: done - 1])
                last = progress.evaluation is not None
                self.examples += self._total - before if last else len(progress.chunk)
            whole = progress.evaluation
            yield replace(progress, evaluation=whole and replace(whole, name=job.name))
        fresh.close()


def run(study: DrivenStudy, evaluator: Remembered, examples: float) -> None:
    """As `search.loop.run_study`, without test, until `examples` were asked for."""
    while (job := study.next_job()) is not None and job.part == "validation":
        if evaluator.examples >= examples:
            return
        for progress in evaluator.run(job):
            if progress.evaluation is not None:
                study.finish(job, progress.evaluation)
            elif study.report(job, progress.step, progress.score, progress.chunk):
                study.prune(job)
                break


def one(
    plan: Plan, config: StudyConfig, evaluator: Remembered, examples: float = math.inf
) -> tuple[int, float, str]:
    """Examples asked, the winner's validation score, and the winner, of one study."""
    evaluator.examples = 0
    with tempfile.TemporaryDirectory() as folder:
        identity = Identity(ID, "", {}, "", "", "", "")
        subject = Subject(Path(folder), identity, config, plan.space, plan.max_ranks)
        study = DrivenStudy.open(subject)
        run(study, evaluator, examples)
        winner = study.winner()
        baseline = study.baseline
    if winner is None:
        return evaluator.examples, baseline.score if baseline else 0.0, "baseline"
    return evaluator.examples, float(winner.score or 0), winner.effect


def pair(
    plan: Plan, config: StudyConfig, evaluator: Remembered, seed: int, asked: argparse.Namespace
) -> dict[str, Any]:
    """One seed in the three ways."""

    def study(pruner: str, trials: int, examples: float = math.inf) -> tuple[int, float, str]:
        settings = {
            "seed": seed,
            "pruner": pruner,
            "chunks": asked.chunks,
            "strategy": asked.strategy,
            "trials": trials,
        }
        own = config.search.model_copy(update=settings)
        return one(plan, config.model_copy(update={"search": own}), evaluator, examples)

    whole = study("none", asked.trials)
    raced = study("race", asked.trials)
    longer = study("race", 10 * asked.trials, whole[0])
    return {
        "saved": 1 - raced[0] / whole[0],
        "score": raced[1] - whole[1],
        "same": whole[2] == raced[2],
        "equal": whole[1] == raced[1],
        "longer": longer[1] - whole[1],
    }


def main() -> None:
    """Run the pairs of studies and print what they say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--chunks", type=int, default=8)
    parser.add_argument("--strategy", default="tpe")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        config = configured(Path(scratch), asked)
        plan = make_plan(config)
        parts = {"validation": plan.split.validation, "test": plan.split.test}
        questions = Questions(plan.task, parts, asked.chunks, study_id=ID)
        own = open_evaluator(plan.source, questions, config.factors)
        evaluator = Remembered(own, len(plan.split.validation))
        rows: list[dict[str, Any]] = []
        for seed in range(asked.seeds):
            rows.append(pair(plan, config, evaluator, seed, asked))
            print(f"seed {seed}: {rows[-1]}", file=sys.stderr, flush=True)
    print(json.dumps(summary(rows, len(plan.split.validation)), indent=1))


def summary(rows: list[dict[str, Any]], examples: int) -> dict[str, Any]:
    """Medians and counts over the seeds."""
    saved = sorted(row["saved"] for row in rows)
    return {
        "seeds": len(rows),
        "validation examples": examples,
        "saved, median": round(statistics.median(saved), 3),
        "saved, least and most": [round(saved[0], 3), round(saved[-1], 3)],
        "same winner": sum(row["same"] for row in rows),
        "winner of equal validation score": sum(row["equal"] for row in rows),
        "raced minus whole, validation score of the winner": {
            "mean": round(statistics.fmean(row["score"] for row in rows), 4),
            "worst": round(min(row["score"] for row in rows), 4),
            "best": round(max(row["score"] for row in rows), 4),
        },
        "the same at equal cost": {
            "mean": round(statistics.fmean(row["longer"] for row in rows), 4),
            "worst": round(min(row["longer"] for row in rows), 4),
            "best": round(max(row["longer"] for row in rows), 4),
        },
    }


def configured(scratch: Path, asked: argparse.Namespace) -> StudyConfig:
    """The demo's study, or one of a classifier."""
    if asked.model is None:
        return demo_config(scratch, asked.trials)
    data = {
        "model": {"path": str(asked.model.resolve())},
        "task": {"name": "sst2", "data": str(asked.data.resolve())},
        "split": {"validation": 0.5},
        "search": {"trials": asked.trials},
        "factors": str(scratch / "factors"),
    }
    return parse_config(data, "racing")


if __name__ == "__main__":
    main()

"""Replay strategies against a table of truth: many seeds in the time of a few evaluations.

    python benchmarks/landscape/replay.py --table ./landscape/demo \
        --strategies grid random tpe/slots tpe/sites greedy snr screened auto
    python benchmarks/landscape/summary.py --tables ./landscape/demo ./landscape/sst2

Every replay is a real study (`search.study.driven_study`) in one process; only the evaluator reads
from the table. What the table does not hold is evaluated and added. Each replay is kept as one file
below TABLE/replays, so that a run that is stopped goes on where it was. A strategy is named as in
study.yaml, with its encoding after a slash. What a strategy knows beforehand (a screen of 100
questions, drawn by seed; spectra) is computed from the model, and a screen's cost is counted.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from table import Landscape, TableEvaluator, note

from search.config import StudyConfig, parse_config
from search.strategies.base import Setting
from search.strategies.registry import strategy_class
from search.study.driven_study import DrivenStudy
from search.study.identity import Identity
from search.study.objective import Objective
from search.study.subject import Subject
from tasks.base import Example

IDENTITY = Identity("replay", "", {}, "", "", "", "")
REPLAYS = "replays"
SCREENED = 100
FIXED = ("grid", "greedy", "snr")
"""Strategies that no seed changes."""


def configured(
    config: StudyConfig, strategy: str, trials: int, seed: int, **more: Any
) -> StudyConfig:
    """The table's study with another search."""
    settings = config.model_dump(mode="json")
    settings["search"] |= {"strategy": strategy, "trials": trials, "seed": seed, **more}
    return parse_config(settings, "replay")


def replay(landscape: Landscape, config: StudyConfig, first: int | None = None) -> dict[str, Any]:
    """One study: after every evaluation the passes spent and its score.

    `first`: how many trials are made of those that the search is told it has.
    """
    objective = Objective.of(config, landscape.plan.objective.metrics)
    plan = replace(landscape.plan, config=config, objective=objective)
    setting, before = prepare(landscape, config)
    evaluator = TableEvaluator(landscape, config.search.chunks, objective=objective)
    curve: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        own = (plan.space, plan.max_ranks, plan.objective, setting)
        study = DrivenStudy.open(Subject(Path(folder), IDENTITY, config, *own))
        started = time.perf_counter()
        while (job := study.next_job()) is not None and job.part == "validation":
            for progress in evaluator.run(job):
                if progress.evaluation is not None:
                    study.finish(job, replace(progress.evaluation, study=IDENTITY.study_id))
                elif study.report(job, progress.step, progress.score, progress.chunk):
                    study.prune(job)
                    break
            if job.number is not None:
                whole = progress.evaluation
                curve.append(
                    {
                        "passes": round(evaluator.passes - 1, 4),  # the baseline is everyone's
                        "effect": job.effect,
                        "score": None if whole is None else whole.score,
                    }
                )
                if len(curve) == first:
                    break
        winner = study.winner()
        baseline = study.baseline
    return {
        "strategy": config.search.strategy,
        "seed": config.search.seed,
        "trials": config.search.trials,
        "baseline": None if baseline is None else baseline.score,
        "winner": "" if winner is None else winner.effect,
        "merit": None if winner is None else winner.merit[:2],
        "before": before,
        "seconds": round(time.perf_counter() - started, 2),
        "curve": curve,
    }


def prepare(
    landscape: Landscape, config: StudyConfig, among: Sequence[Example] | None = None
) -> tuple[Setting, float]:
    """What a strategy knows before the first trial, and the forward passes that it cost.

    `among`: the questions of validation with other answers, for a screen.
    """
    plan, search = landscape.plan, config.search
    setting = Setting(plan.space, plan.max_ranks, search.seed, threshold=search.threshold)
    if strategy_class(search.strategy).wants_spectra:
        return replace(setting, spectra=landscape.spectra()), 0.0
    if not strategy_class(search.strategy).wants_screen:
        return setting, 0.0
    asked = landscape.examples("validation") if among is None else among
    screen = landscape.screen(search.seed, SCREENED, asked)
    # A backward pass costs about two forward ones.
    before = 3 * min(1.0, SCREENED / len(asked))
    if plan.objective.guard is not None:
        setting = replace(setting, costs=landscape.costs())
    return replace(setting, screen=screen), before


def run(landscape: Landscape, label: str, seed: int, trials: int) -> None:
    """Replay one seed and keep it, unless it is kept already."""
    name = label.replace("/", "-")
    path = landscape.folder / REPLAYS / f"{name}-{trials}-{seed:03d}.json"
    if path.exists():
        return
    path.parent.mkdir(exist_ok=True)
    strategy, _, encoding = label.partition("/")
    more = {"encoding": encoding} if encoding else {}
    found = replay(landscape, configured(landscape.config, strategy, trials, seed, **more))
    found["strategy"] = label
    landscape.save()
    note(path, json.dumps(found))
    best = found["merit"][0] if found["merit"] else found["baseline"]
    print(
        f"{path.stem}: {len(found['curve'])} evaluated, best {best:.4f} [{found['winner']}], "
        f"{found['seconds']} s, {landscape.added} new in the table",
        file=sys.stderr,
        flush=True,
    )


def main() -> None:
    """Replay."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--strategies", nargs="+", default=["random", "tpe/slots"])
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--trials", type=int, help="by default as many as there are single cuts")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    landscape = Landscape(asked.table)
    grid = len(landscape.grid())
    for seed in range(asked.seeds):
        for strategy in asked.strategies:
            if seed and strategy.partition("/")[0] in FIXED:
                continue
            run(landscape, strategy, seed, asked.trials or grid)


if __name__ == "__main__":
    main()

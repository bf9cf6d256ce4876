from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from search.config import StudyConfig, parse_config
from search.cuts.refs import MatrixRef
from search.ladder import Ladder
from search.space import Space
from search.study.driven_study import DrivenStudy
from search.study.identity import Identity
from search.study.jobs import Job
from search.study.objective import Objective
from search.study.outcomes import Evaluation
from search.study.subject import Subject
from search.study.wall_time import WallTime
from search.witness import Witness
from tasks.base import Outcome

LAYERS, TYPES, FULL = range(4), ("fc_in", "fc_out"), 64
REFS = tuple(MatrixRef(layer, kind) for layer in LAYERS for kind in TYPES)


def landscape(effect: str, example: int = 0) -> float:
    """A made-up objective in (0, 1): deterministic, with interactions, best off the grid's edge."""
    value = 0.5
    for part in effect.split():
        name, rank = part.split("=")
        layer, kind = name.split(".")
        kept = int(rank.split(":")[1]) / FULL
        value += (0.1 if kind == "fc_in" else 0.02) * (int(layer) - 1) * (0.6 - kept)
    return 1 / (1 + math.exp(-(value + 0.01 * example)))


def evaluate(study: DrivenStudy, job: Job) -> Evaluation:
    outcomes = tuple(
        Outcome(str(i), str(i // 2), landscape(job.effect, i), -0.1 * i, "x") for i in range(4)
    )
    score = sum(o.score for o in outcomes) / 4
    return Evaluation(
        job.name, study.identity.study_id, str(job.composition), job.effect, job.part,
        score, 0.15, {"total": 0.0}, outcomes,
    )  # fmt: skip


def work_off(study, limit: int | None = None) -> list[str]:
    """Work off a study's jobs in one process; returns the effects evaluated on validation."""
    evaluated = []
    for _ in itertools.islice(itertools.count(), limit):
        job = study.next_job()
        if job is None:
            break
        if job.part == "validation":
            evaluated.append(job.effect)
        study.finish(job, evaluate(study, job))
    return evaluated


@pytest.fixture
def evaluation() -> Callable[[DrivenStudy, Job], Evaluation]:
    """A made-up evaluation of a job."""
    return evaluate


@pytest.fixture
def drive() -> Callable[..., list[str]]:
    """Work off a study's jobs with made-up evaluations."""
    return work_off


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., StudyConfig]:
    def make(storage: str | None = None, rho: object = None, **search: object) -> StudyConfig:
        space = {"max_interventions": 2}
        if rho is not None:
            space["rho"] = rho
        return parse_config(
            {
                "model": {"path": "nowhere"},
                "task": {"name": "jsonl"},
                "space": space,
                "search": {"trials": 30, "strategy": "tpe", **search},
                "storage": storage,
            },
            "test",
        )

    return make


IDENTITY = Identity("study-under-test", "2026-01-01", {}, "w", "c", "e", "s")


@pytest.fixture
def open_study(make_config: Callable[..., StudyConfig]) -> Callable[..., DrivenStudy]:
    def make(
        folder: Path,
        config: StudyConfig | None = None,
        identity: Identity = IDENTITY,
        guard: Callable[[], None] = lambda: None,
        wall: WallTime | None = None,
        witness: Witness | None = None,
        objective: Objective | None = None,
    ) -> DrivenStudy:
        folder.mkdir(exist_ok=True)
        config = config or make_config()
        rho = config.space.rho
        ladder = Ladder.of_rho(rho) if isinstance(rho, list) else Ladder.between(rho.low, rho.high)
        space = Space(REFS, ladder, config.space.max_interventions)
        ranks = dict.fromkeys(REFS, FULL)
        subject = Subject(folder, identity, config, space, ranks, objective)
        return DrivenStudy.open(subject, guard=guard, wall=wall, witness=witness)

    return make

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from search.config import parse_config, write_config
from search.cuts.refs import MatrixRef
from search.ladder import Ladder
from search.space import Space
from search.study.driven_study import DrivenStudy
from search.study.identity import Identity
from search.study.jobs import Job
from search.study.objective import Objective
from search.study.outcomes import Evaluation
from search.study.questions import write_questions
from search.study.study_record import CONFIG, StudyRecord
from search.study.subject import Subject
from search.study.verdict import conclude
from tasks.base import Example, Outcome
from tasks.datasets import Split

HOSTILE = "<script>fetch('http://evil.example/')</script><img src=x onerror=alert(1)>\"'&$x_1$"
TYPES, FULL, QUESTIONS = ("q_proj", "fc_in", "fc_out"), 64, 40
SLOW_S = {"prepare": 0.0, "forward": 0.9, "score": 0.05, "apply": 0.04, "restore": 0.01}


def examples(part: str, text: str) -> list[Example]:
    kinds = ("common", "rare", text)
    return [
        Example(
            f"{part}{n}", f"{part}g{n // 2}", f"Question {n}? {text}", f"answer {n} {text}",
            columns={"kind": kinds[n % 3]},
        )
        for n in range(QUESTIONS)
    ]  # fmt: skip


def quality(effect: str) -> float:
    """A made-up objective in (0, 1) with its best far from the baseline."""
    value = -0.3
    for part in effect.split():
        name, rank = part.split("=")
        layer, kind = name.split(".")
        kept = int(rank.split(":")[1]) / FULL
        value += {"fc_in": 0.6, "fc_out": 0.1, "q_proj": -0.4}[kind] * int(layer) * (0.6 - kept)
    return 1 / (1 + math.exp(-value))


def evaluate(study: DrivenStudy, job: Job, text: str) -> Evaluation:
    chance = random.Random(job.name)
    share = quality(job.effect)
    outcomes = []
    for n in range(QUESTIONS):
        right = n < share * QUESTIONS
        confidence = min(0.99, max(0.01, chance.gauss(0.7 if right else 0.4, 0.15)))
        outcomes.append(
            Outcome(
                f"{job.part}{n}", f"{job.part}g{n // 2}", float(right), math.log(confidence),
                f"answer {n if right else 0} {text}", confidence=confidence, brier=0.3,
            )
        )  # fmt: skip
    score = sum(o.score for o in outcomes) / QUESTIONS
    loss = -sum(o.log_probability for o in outcomes) / QUESTIONS
    return Evaluation(
        job.name, study.identity.study_id, str(job.composition), job.effect, job.part,
        score, loss, {**SLOW_S, "total": 1.0}, tuple(outcomes),
    )  # fmt: skip


def work_off(study: DrivenStudy, text: str, limit: int | None) -> None:
    """Evaluate job after job; the eleventh fails, and the pruner is asked after the first half."""
    done = 0
    while (limit is None or done < limit) and (job := study.next_job()) is not None:
        done += 1
        found = evaluate(study, job, text)
        if done == 12 and job.part == "validation":
            study.fail(job, f"ValueError: {text}")
        elif job.part == "validation" and job.number and study.report(job, 1, found.score):
            study.prune(job)
        else:
            study.finish(job, found)


def build(
    folder: Path, trials: int = 60, layers: int = 4, text: str = "", limit: int | None = None
) -> StudyRecord:
    """A study with everything that a report shows, driven as a real one; `limit` jobs of it."""
    folder.mkdir(parents=True)
    config = parse_config(
        {
            "model": {"path": f"model {text}"},
            "task": {"name": "jsonl"},
            "space": {"max_interventions": 3, "matrices": list(TYPES)},
            "search": {"strategy": "tpe", "trials": trials, "pruner": "median", "chunks": 2},
        },
        "test",
    )
    refs = tuple(MatrixRef(layer, kind) for layer in range(layers) for kind in TYPES)
    identity = Identity("s" * 32, "2026-11-21T00:00:00+00:00", {"torch": text}, *"wces")
    identity.write(folder)
    write_config(config, folder / CONFIG)
    split = Split(examples("validation", text), examples("test", text))
    write_questions(folder, split)
    space = Space(refs, Ladder.of_rho(config.space.rho), config.space.max_interventions)
    objective = Objective.of(config, {"": "accuracy"})
    subject = Subject(folder, identity, config, space, dict.fromkeys(refs, FULL), objective)
    study = DrivenStudy.open(subject)
    work_off(study, text, limit)
    if limit is None:
        conclude(folder, identity, study.chosen(), split, objective)
    return StudyRecord.read(folder)


@pytest.fixture(scope="session")
def make_study() -> Callable[..., StudyRecord]:
    return build


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyRecord:
    """A finished study of 60 trials, some pruned, one failed."""
    return build(tmp_path_factory.mktemp("report") / "my-study")


@pytest.fixture(scope="session")
def hostile_study(tmp_path_factory: pytest.TempPathFactory) -> StudyRecord:
    """The same, where every text that comes from data or models is markup."""
    return build(tmp_path_factory.mktemp("hostile") / "my-study", text=HOSTILE)


@pytest.fixture(scope="session")
def demo_study(tmp_path_factory: pytest.TempPathFactory) -> StudyRecord:
    """Twelve trials of the demo, searched for real in this process."""

    from search.demo.study import demo_config
    from search.evaluation.evaluator import Questions, open_evaluator
    from search.loop import run_study
    from search.plan import make_plan

    folder = tmp_path_factory.mktemp("demo") / "laser-demo"
    folder.mkdir()
    config = demo_config(folder, trials=12)
    plan = make_plan(config)
    identity = Identity("d" * 32, "2026-11-21T00:00:00+00:00", {}, *"wces")
    identity.write(folder)
    write_config(config, folder / CONFIG)
    write_questions(folder, plan.split)
    subject = Subject(folder, identity, config, plan.space, plan.max_ranks, plan.objective)
    study = DrivenStudy.open(subject)
    parts = {"validation": plan.split.validation, "test": plan.split.test}
    questions = Questions(plan.task, parts, study_id=identity.study_id)
    run_study(study, open_evaluator(plan.source, questions, config.factors))
    conclude(folder, identity, study.chosen(), plan.split, plan.objective)
    return StudyRecord.read(folder)

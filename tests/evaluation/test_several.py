"""Several tasks on one resident model are what each is by itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from search.config import parse_config
from search.cuts.composition import Composition
from search.demo.study import HERE
from search.evaluation.evaluator import Questions, open_evaluator
from search.plan import make_plan
from search.study.jobs import Job

CUT = Composition.parse(["1.fc_in=0.1"])


@pytest.fixture
def asked(tmp_path: Path):
    questions = tmp_path / "questions.jsonl"
    lines = (HERE / "questions.jsonl").read_text().splitlines(keepends=True)[:60]
    questions.write_text("".join(lines))
    texts = tmp_path / "texts.jsonl"
    rows = [json.loads(line) for line in lines]
    texts.write_text(
        "".join(json.dumps({"text": f"{r['prompt']} {r['answer']}."}) + "\n" for r in rows[:20])
    )
    return [
        {"name": "jsonl", "data": str(questions), "weight": 3},
        {"name": "perplexity", "data": str(texts)},
    ]


def open_plan(tmp_path: Path, chunks: int = 1, **asked: object):
    config = parse_config({"model": {"path": str(HERE / "model")}, **asked}, "test")
    plan = make_plan(config)
    parts = {"validation": plan.split.validation, "test": plan.split.test}
    questions = Questions(plan.task, parts, chunks, plan.objective)
    return open_evaluator(plan.source, questions, tmp_path / "factors")


def test_each_tasks_outcomes_are_its_own(tmp_path: Path, asked, rounding) -> None:
    job = Job("x", CUT, "", "validation")
    together = open_plan(tmp_path, tasks=asked).evaluate(job)
    alone = {
        task["name"]: open_plan(
            tmp_path, task={k: v for k, v in task.items() if k != "weight"}
        ).evaluate(job)
        for task in asked
    }
    twin = open_plan(tmp_path, tasks=asked)
    twin.editor.model.double()
    exact = twin.evaluate(job)
    assert list(together.scores) == list(alone) == list(exact.scores)
    rounding.check(
        list(together.scores.values()),
        [found.score for found in alone.values()],
        list(exact.scores.values()),
    )
    expected = (3 * together.scores["jsonl"] + together.scores["perplexity"]) / 4
    assert together.score == pytest.approx(expected, abs=1e-12)
    by_id = {o.example_id: o for o in together.outcomes}
    plain = {f"{n}/{o.example_id}": o for n, found in alone.items() for o in found.outcomes}
    assert {o.example_id for o in exact.outcomes} == by_id.keys() == plain.keys()
    rounding.check(
        [by_id[o.example_id].log_probability for o in exact.outcomes],
        [plain[o.example_id].log_probability for o in exact.outcomes],
        [o.log_probability for o in exact.outcomes],
    )
    for name, found in alone.items():
        for outcome in found.outcomes:
            own = by_id[f"{name}/{outcome.example_id}"]
            assert own.task == name
            assert (own.prediction, own.weight) == (outcome.prediction, outcome.weight)


def test_every_chunk_has_a_sample_of_every_task(tmp_path: Path, asked) -> None:
    whole = open_plan(tmp_path, tasks=asked).evaluate(Job("x", CUT, "", "validation"))
    steps = list(open_plan(tmp_path, chunks=3, tasks=asked).run(Job("x", CUT, "", "validation")))
    assert [step.step for step in steps] == [1, 2, 3]
    assert steps[-1].evaluation.scores == pytest.approx(whole.scores)
    # Both tasks are in the first value: neither accuracies nor negative nats alone are near it.
    assert abs(steps[0].score - whole.score) < 0.5


def test_a_value_may_be_relative_to_the_baselines_scores(tmp_path: Path, asked) -> None:
    evaluator = open_plan(tmp_path, tasks=asked, objective="relative")
    before = evaluator.evaluate(Job("b", Composition(), "", "validation"))
    assert before.score == 0
    after = evaluator.evaluate(Job("x", CUT, "", "validation", 1, before.scores))
    gain = after.scores["jsonl"] / before.scores["jsonl"] - 1
    nats = after.scores["perplexity"] - before.scores["perplexity"]
    assert after.score == pytest.approx((3 * gain + nats) / 4)

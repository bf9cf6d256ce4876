"""What holds for every task."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tasks.base import (
    Choose,
    Chosen,
    Classified,
    Classify,
    Complete,
    Completed,
    Example,
    FillAtOnce,
    Generate,
    Generated,
    Reply,
    Request,
    Task,
    TokenNll,
    TokenNlls,
    Weigh,
    Weighed,
)
from tasks.registry import get_task

CLASSES = 12
"""Labels of a made-up classifier."""


def reply_to(request: Request, sure: float) -> Reply:
    """A reply of the kind that a predictor gives; `sure` in nats: what it holds of the first."""
    match request:
        case Classify():
            scores = [sure, *[0.0] * (CLASSES - 1)]
            total = math.log(math.fsum(map(math.exp, scores)))
            return Classified(tuple(score - total for score in scores))
        case Choose(choices=choices) | FillAtOnce(choices=choices, masks=0):
            values = [sure - 9.0, *[-9.0] * (len(choices) - 1)]
            return Chosen(tuple(values), (1,) * len(choices), flat=sure == 0)
        case Weigh(pairs=pairs):
            values = [sure - 9.0, *[-9.0] * (len(pairs) - 1)]
            ones = (1,) * len(pairs)
            return Weighed(tuple(values), (0.0,) * len(pairs), ones, flat=sure == 0, tied=ones)
        case Complete():
            return Completed(sure - 9.0, 0.0, 3, "nothing")
        case Generate() | FillAtOnce():
            return Generated("nothing", 1, sure - 9.0, 1)
        case TokenNll():
            return TokenNlls(9.0 - sure, 3)


class TaskContract:
    """Override `task` and, if it reads a file, `data`. The task must be installed."""

    @pytest.fixture
    def task(self) -> Task:
        """The task under test."""
        raise NotImplementedError

    @pytest.fixture
    def data(self, tmp_path: Path) -> str | None:
        """The file or folder to read, None where the task brings its own."""
        return None

    @pytest.fixture
    def examples(self, task: Task, data: str | None) -> list[Example]:
        """All examples."""
        return task.load(data)

    def test_it_is_found_by_its_name(self, task: Task) -> None:
        assert type(get_task(task.name)) is type(task)
        assert task.heads, "a task that no head can answer is none"
        assert task.metric

    def test_its_examples_are_told_apart_and_read_the_same_twice(
        self, task: Task, data: str | None, examples: list[Example]
    ) -> None:
        assert examples
        assert len({example.id for example in examples}) == len(examples)
        assert all(example.group for example in examples), "a split keeps groups together"
        assert task.load(data) == examples

    def test_each_head_is_asked_something_that_can_be_scored(
        self, task: Task, examples: list[Example]
    ) -> None:
        for head in sorted(task.heads):
            for example in examples:
                request = task.request(example, head)
                assert task.request(example, head) == request
                assert isinstance(request, Classify) == (head == "classifier")
                for sure in (0.0, 2.0):
                    outcome = task.outcome(example, reply_to(request, sure))
                    assert (outcome.example_id, outcome.group) == (example.id, example.group)
                    assert math.isfinite(outcome.score)
                    assert math.isfinite(outcome.log_probability)
                    assert outcome.weight > 0

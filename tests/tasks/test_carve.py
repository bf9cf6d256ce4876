"""The confirmation part: whole groups out of validation, the same whatever the file's order."""

from __future__ import annotations

import random

import pytest

from tasks.base import Example
from tasks.datasets import Split
from tasks.errors import InputError
from tasks.splits import carve, split_tasks


def examples(groups: int, each: int = 3, task: str = "") -> list[Example]:
    return [
        Example(f"{task}{g}-{n}", f"{task}{g}", "q", "a", task=task)
        for g in range(groups)
        for n in range(each)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_groups_stay_whole_and_nothing_is_lost(seed: int) -> None:
    split = split_tasks(examples(80), 0.5, seed)
    parts = carve(split, 0.25, seed)
    assert parts.test == split.test
    assert {x.id for x in parts.validation + parts.confirm} == {x.id for x in split.validation}
    assert not {x.group for x in parts.validation} & {x.group for x in parts.confirm}
    assert abs(len(parts.confirm) / len(split.validation) - 0.25) < 0.05
    mixed = random.Random(seed).sample(split.validation, len(split.validation))
    assert carve(Split(mixed, split.test), 0.25, seed) == parts


def test_every_task_has_its_share() -> None:
    split = split_tasks([*examples(40, task="one"), *examples(20, task="two")], 0.5, 0)
    parts = carve(split, 0.3)
    assert {x.task for x in parts.confirm} == {x.task for x in parts.validation} == {"one", "two"}


def test_too_little_is_refused_with_a_sentence() -> None:
    with pytest.raises(InputError, match=r"search.confirm.share 0.2.*in 1 groups.*confirm: null"):
        carve(Split(examples(1), examples(2)), 0.2)

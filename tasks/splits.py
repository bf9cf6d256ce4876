"""Which examples the search sees: a seeded split by group, the data's own parts, or the paper's."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from tasks.base import Example
from tasks.datasets import Split, split_by_group
from tasks.errors import InputError

log = logging.getLogger(__name__)

Protocol = Literal["auto", "groups", "paper"]
"""How to split: `auto` is the data's own parts where it has both, else `groups`."""


def split_examples(
    examples: Sequence[Example],
    validation: float = 0.2,
    seed: int = 0,
    protocol: Protocol = "auto",
) -> Split:
    """Split `examples` by `protocol`.

    `groups`: see `tasks.datasets.split_by_group`. `paper`: the first part of the file, unshuffled,
    as LASER's code splits; groups may cross. `auto`: as the examples say themselves, if every one
    does and both parts occur; examples whose group is in test too are then left out of validation.
    Raises InputError when a side would be empty.
    """
    match protocol:
        case "paper":
            return _first(examples, validation)
        case "auto" if {example.part for example in examples} == {"validation", "test"}:
            return _own(examples)
    return split_by_group(examples, validation, seed)


def split_tasks(
    examples: Sequence[Example],
    validation: float = 0.2,
    seed: int = 0,
    protocol: Protocol = "auto",
) -> Split:
    """Split the examples of each task by itself, so that either part has some of each.

    Groups that are in one task's test and in another's validation (two questions about one text)
    are left out of validation. Raises InputError when a side of a task would be empty.
    """
    tasks: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        tasks[example.task].append(example)
    splits = {
        task: split_examples(found, validation, seed, protocol) for task, found in tasks.items()
    }
    test = [example for split in splits.values() for example in split.test]
    if len(splits) == 1 or protocol == "paper":
        return Split([example for split in splits.values() for example in split.validation], test)
    held_out = {example.group for example in test}
    kept: list[Example] = []
    for task, split in splits.items():
        apart = [example for example in split.validation if example.group not in held_out]
        if not apart:
            raise InputError(
                f"every validation example of task {task!r} shares its group with a test example "
                "of another task; use another split.seed"
            )
        if left_out := len(split.validation) - len(apart):
            log.warning(
                "%d of %d validation examples of task %s have their group in the test part of "
                "another task and are excluded",
                left_out,
                len(split.validation),
                task,
            )
        kept += apart
    return Split(kept, test)


def carve(split: Split, share: float, seed: int = 0) -> Split:
    """Move about a `share` of validation, whole groups of every task, into `confirm`.

    Seeded and independent of the order of the file. Raises InputError where a side would be empty.
    """
    try:
        parts = split_tasks(split.validation, 1 - share, seed, "groups")
    except InputError:
        groups = len({example.group for example in split.validation})
        raise InputError(
            f"search.confirm.share {share:g} leaves no example on one side of the "
            f"{len(split.validation)} of validation, in {groups} groups; use a larger "
            "split.validation, another share, or confirm: null"
        ) from None
    return Split(parts.validation, split.test, parts.test)


def _first(examples: Sequence[Example], validation: float) -> Split:
    """The first examples validate, rounded down, in the order of the file."""
    count = int(validation * len(examples))
    split = Split(list(examples[:count]), list(examples[count:]))
    if not split.validation or not split.test:
        raise InputError(
            f"{len(examples)} examples cannot be split by protocol 'paper' with validation "
            f"{validation:g}: one side is empty; give more examples or another fraction"
        )
    return split


def _own(examples: Sequence[Example]) -> Split:
    test = [example for example in examples if example.part == "test"]
    held_out = {example.group for example in test}
    own = [example for example in examples if example.part == "validation"]
    kept = [example for example in own if example.group not in held_out]
    if not kept:
        raise InputError(
            "every validation example of the data occurs in its test part too; use split.protocol "
            "'groups'"
        )
    if len(kept) < len(own):
        log.warning(
            "%d of %d validation examples also occur in test and are excluded",
            len(own) - len(kept),
            len(own),
        )
    return Split(kept, test)

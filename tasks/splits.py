"""Which examples the search sees: a seeded split by group, the data's own parts, or the paper's."""

from __future__ import annotations

import logging
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
            "%d of %d validation examples occur in test too and are left out",
            len(own) - len(kept),
            len(own),
        )
    return Split(kept, test)

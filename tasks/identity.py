"""Example ids that do not depend on the order of a file, and a count of what is doubled."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tasks.base import Example
from tasks.errors import InputError


def content_hash(*parts: object) -> str:
    """Return 16 hexadecimal digits of BLAKE2b over the JSON of `parts`."""
    text = json.dumps(parts, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def question_hash(example: Example) -> str:
    """Hash of what is asked, without the answer: contradictory rows share it."""
    return content_hash(example.prompt, example.text_pair, example.choices)


def identify(drafts: Sequence[Example]) -> list[Example]:
    """Give examples that lack them an id and a group; order is kept.

    An empty `id` becomes a hash of the content (question, answer, label, given group); exact
    duplicates get ``-2``, ``-3`` ... in the order of their columns, so that the same rows in
    another order get the same ids. An empty `group` becomes the hash of the question, so rows that
    ask the same never cross the split, whatever their answers.
    Raises InputError when two examples were given one id.
    """
    twins: dict[str, list[int]] = defaultdict(list)
    ids = []
    for index, draft in enumerate(drafts):
        ids.append(draft.id or _content_id(draft))
        twins[ids[-1]].append(index)
    for name, indices in twins.items():
        if len(indices) > 1 and any(drafts[index].id for index in indices):
            raise InputError(
                f"id {name!r} is used by {len(indices)} rows; make ids unique or remove them"
            )
        indices.sort(key=lambda index: json.dumps(dict(drafts[index].columns), sort_keys=True))
        for ordinal, index in enumerate(indices[1:], 2):
            ids[index] = f"{name}-{ordinal}"
    return [
        replace(draft, id=name, group=draft.group or question_hash(draft))
        for name, draft in zip(ids, drafts, strict=True)
    ]


def _content_id(draft: Example) -> str:
    return content_hash(
        draft.prompt, draft.text_pair, draft.choices, draft.answer, draft.label, draft.group
    )


@dataclass(frozen=True, slots=True)
class Duplicates:
    """`exact`: examples beyond the first with one question and answer.

    `contradictory`: examples whose question also occurs with another answer.
    """

    exact: int
    contradictory: int


def count_duplicates(examples: Sequence[Example]) -> Duplicates:
    """Count repeated questions with the same and with different answers."""
    answers: dict[str, list[str]] = defaultdict(list)
    for example in examples:
        answers[question_hash(example)].append(example.answer)
    exact = sum(len(found) - len(set(found)) for found in answers.values())
    contradictory = sum(len(found) for found in answers.values() if len(set(found)) > 1)
    return Duplicates(exact, contradictory)

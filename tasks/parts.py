"""How large a part of the questions is: in questions, and in groups, which are what is independent.

Rows of one group (paraphrases, answers to one question) rise and fall together, so a part that is
mostly one group says little, however many questions it has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.base import Example

LARGE = 0.2
"""Share of a part above which its largest group is warned of."""

_QUOTED = 60
"""Characters of a question that are shown."""


@dataclass(frozen=True, slots=True)
class PartSize:
    """Questions and groups of one part; `warnings` on groups that are too much of it."""

    part: str
    questions: int
    groups: int
    warnings: tuple[str, ...] = ()


def size_of(part: str, examples: Sequence[Example]) -> PartSize:
    """Count the questions and groups of `part`; each of several tasks is judged by itself."""
    tasks: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        tasks[example.task].append(example)
    found = [_warning(part, task, asked) for task, asked in tasks.items()]
    groups = len({example.group for example in examples})
    return PartSize(part, len(examples), groups, tuple(filter(None, found)))


def sizes_text(sizes: Sequence[PartSize]) -> str:
    """One line for people: ``questions: validation 8 in 8 groups, test 32 in 30 groups``."""
    return "questions: " + ", ".join(
        f"{'' if size.part == 'all' else f'{size.part} '}{size.questions:,} in {size.groups:,} "
        f"group{'s' if size.groups != 1 else ''}"
        for size in sizes
        if size.questions
    )


def _warning(part: str, task: str, examples: Sequence[Example]) -> str:
    """A sentence on the largest group of one task's questions, empty if it is none too large."""
    members: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        members[example.group].append(example)
    name, largest = max(members.items(), key=lambda item: len(item[1]))
    if len(largest) < 2 or len(largest) <= LARGE * len(examples):
        return ""
    asked = largest[0].prompt
    shown = asked if len(asked) <= _QUOTED else f"{asked[: _QUOTED - 1]}…"
    among = "questions" if part == "all" else f"{part} questions"
    of = f" of {task}" if task else ""
    return (
        f"the group {name!r} (such as {shown!r}) holds {len(largest)} of {len(examples)} "
        f"{among}{of}, {len(largest) / len(examples):.0%}"
        "; scores here hold for little more than this group: check the field `group`, or give "
        "more groups"
    )

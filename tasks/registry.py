"""Every task by its name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tasks.base import Head, Task
from tasks.counterfact import CounterFact
from tasks.errors import InputError, nearest
from tasks.jsonl import Jsonl
from tasks.sst2 import Sst2

TASKS: Mapping[str, Task] = MappingProxyType(
    {task.name: task for task in (CounterFact(), Jsonl(), Sst2())}
)


def get_task(name: str) -> Task:
    """Return the task called `name`. Raises InputError with the nearest name."""
    if name not in TASKS:
        raise InputError(
            f"task {name!r} does not exist{nearest(name, TASKS)}; "
            f"expected one of {', '.join(sorted(TASKS))}"
        )
    return TASKS[name]


def check_head(task: Task, head: Head) -> None:
    """Refuse a task that `head` cannot answer, by name and before anything loads.

    Raises InputError.
    """
    if head not in task.heads:
        raise InputError(
            f"task {task.name!r} cannot be answered by a {head} head; it needs a model with a "
            f"{' or '.join(sorted(task.heads))} head"
        )

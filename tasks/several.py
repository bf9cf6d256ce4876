"""Several tasks side by side, as one: each question is asked and scored by the task it is of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tasks.base import Example, Head, Outcome, Reply, Request, Task


@dataclass(frozen=True, slots=True)
class Asked:
    """A task, the local file or hub id of its data, and that one's revision."""

    task: Task
    data: str | None = None
    revision: str | None = None


class Several:
    """Tasks by label. The id of an example is ``LABEL/ID``, so that ids of two never meet."""

    name = "several"
    metric = "objective"

    def __init__(self, asked: Mapping[str, Asked]) -> None:
        """Nothing is read yet."""
        self._asked = dict(asked)
        self.heads: frozenset[Head] = frozenset.intersection(
            *(one.task.heads for one in self._asked.values())
        )

    @property
    def metrics(self) -> dict[str, str]:
        """The metric of every task by its label."""
        return {label: one.task.metric for label, one in self._asked.items()}

    def load(self, source: str | None = None, revision: str | None = None) -> list[Example]:
        """Read the examples of all tasks, each from its own data; the arguments are not used."""
        return [
            replace(example, id=f"{label}/{example.id}", task=label)
            for label, one in self._asked.items()
            for example in one.task.load(one.data, one.revision)
        ]

    def request(self, example: Example, head: Head) -> Request:
        """Return what the example's own task asks."""
        return self._asked[example.task].task.request(example, head)

    def outcome(self, example: Example, reply: Reply) -> Outcome:
        """Score by the rules of the example's own task."""
        return replace(self._asked[example.task].task.outcome(example, reply), task=example.task)

"""General text beside a task: what a change of the model costs elsewhere."""

from __future__ import annotations

from dataclasses import replace

from tasks.base import Example, Head, Outcome, Reply, Request, Task
from tasks.perplexity import Perplexity

GENERAL_TEXT = "general text"
"""What examples of general text name as their task."""


class Guarded:
    """A task, and texts labelled `GENERAL_TEXT`, which are scored as a perplexity."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._texts = Perplexity()
        self.name = task.name
        self.metric = task.metric
        self.heads: frozenset[Head] = task.heads

    def load(self, source: str | None = None, revision: str | None = None) -> list[Example]:
        """Return the task's own examples."""
        return self._task.load(source, revision)

    def request(self, example: Example, head: Head) -> Request:
        """Return what the example's task asks."""
        return self._of(example).request(example, head)

    def outcome(self, example: Example, reply: Reply) -> Outcome:
        """Score a reply by the rules of the example's task."""
        found = self._of(example).outcome(example, reply)
        return replace(found, task=GENERAL_TEXT) if example.task == GENERAL_TEXT else found

    def _of(self, example: Example) -> Task:
        return self._texts if example.task == GENERAL_TEXT else self._task

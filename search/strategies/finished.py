"""The finished trials of a history, each once."""

from __future__ import annotations

from collections.abc import Iterator

from search.strategies.base import History, Tried


class Finished:
    """Hands out each trial when it is first seen finished. What is in flight comes later."""

    def __init__(self) -> None:
        """None was seen."""
        self._read = 0
        self._open: list[int] = []

    def next(self, history: History) -> Iterator[Tried]:
        """The trials that have finished since it was asked last."""
        fresh = [*self._open, *range(self._read, len(history))]
        self._read, self._open = len(history), []
        for number in fresh:
            if history[number].state.is_finished():
                yield history[number]
            else:
                self._open.append(number)

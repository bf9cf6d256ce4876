"""Compositions in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence

from search.cuts.composition import Composition
from search.strategies.base import History


class Queue:
    """Hands out what is new, in order. What the history holds already is passed over."""

    def __init__(self, compositions: Sequence[Composition]) -> None:
        """In this order."""
        self._compositions = compositions
        self._place = 0

    def next(self, history: History) -> Composition | None:
        """The first that is new, None if none is."""
        for place in range(self._place, len(self._compositions)):
            self._place = place  # a history only grows: nothing before this is ever new again
            if history.is_new(self._compositions[place]):
                return self._compositions[place]
        self._place = len(self._compositions)
        return None

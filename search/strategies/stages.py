"""What comes before and after a strategy: given compositions, and a neighbourhood search."""

from __future__ import annotations

from collections.abc import Sequence

from search.cuts.composition import Composition
from search.strategies.base import History, Strategy
from search.strategies.queue import Queue


class Stages(Strategy):
    """First the given compositions, then the strategy, and the last trials of the budget refine.

    A strategy that ends early leaves the rest of the budget to the refinement, if there is one.
    """

    def __init__(
        self, first: Sequence[Composition], middle: Strategy, last: Strategy | None, share: float
    ) -> None:
        """`share`: how many trials `last` has; below 1 a share of the budget."""
        self._first = Queue(first)
        self._middle = middle
        self._last = last
        self._share = share

    def suggest(self, history: History) -> Composition | None:
        """The present stage's next composition."""
        if (given := self._first.next(history)) is not None:
            return given
        if self._last is None:
            return self._middle.suggest(history)
        share = self._share
        trials = round(share * history.budget) if share < 1 else int(share)
        if len(history) < history.budget - trials:
            proposed = self._middle.suggest(history)
            if proposed is not None or history.in_flight:
                return proposed
        return self._last.suggest(history) or self._middle.suggest(history)

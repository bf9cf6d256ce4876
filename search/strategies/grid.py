"""The LASER paper's exhaustive table: every (matrix, rho) alone, each once."""

from __future__ import annotations

from search.cuts.composition import Composition
from search.space import Space
from search.strategies.base import History, Setting, Strategy
from search.strategies.queue import Queue
from search.strategies.singles import coarse_to_fine


class Grid(Strategy):
    """Coarse to fine over layers and rho, so that a stopped run shows the whole in outline."""

    name = "grid"

    def __init__(self, setting: Setting) -> None:
        """Over the space of `setting`; a range of rho at the steps of its ladder."""
        self._queue = Queue(_cut(setting.space))

    def suggest(self, history: History) -> Composition | None:
        """The next cell of the table."""
        return self._queue.next(history)


def _cut(space: Space) -> list[Composition]:
    return [space.cut([choice]) for choice in coarse_to_fine(space)]

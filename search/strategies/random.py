"""Uniform draws: the baseline that every other strategy has to beat."""

from __future__ import annotations

from search.cuts.composition import Composition
from search.strategies.base import History, Setting, Strategy
from search.strategies.novelty import unseen


class Random(Strategy):
    """A uniform number of choices, then uniform sites and fractions of rank."""

    name = "random"
    takes_budget = True

    def __init__(self, setting: Setting) -> None:
        """Over the space of `setting`."""
        self._setting = setting

    def suggest(self, history: History) -> Composition | None:
        """A uniform draw that is new."""
        return unseen(self._setting.space, history, self._setting.seed)

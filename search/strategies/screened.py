"""Single cuts in the order that a gradient predicts, then the best of them together."""

from __future__ import annotations

from search.cuts.composition import Composition
from search.strategies.base import History, Setting, Strategy
from search.strategies.compose import survivors
from search.strategies.keep_or_revert import KeepOrRevert, is_better
from search.strategies.limits import Limits
from search.strategies.singles import Singles

SHARE = 0.5
"""Of the trials, those spent on single cuts before any are put together."""


class Screened(Strategy):
    """The screen orders the candidates, trials decide.

    Half of the trials go to single cuts, in the order of the predicted change of the loss; last
    come those that the floors will refuse. Those
    that beat the unedited model are then put together greedily, the best first. What is left of the
    budget goes on with single cuts.
    """

    name = "screened"
    wants_screen = True
    needs_screen = True

    def __init__(self, setting: Setting) -> None:
        """Over the space of `setting`, whose screen must be known."""
        if setting.screen is None:
            raise ValueError("strategy screened needs a screen")
        self._space = setting.space
        self._limits = Limits(setting)
        self._singles = Singles(setting, self._limits)
        self._walk: KeepOrRevert | None = None

    def suggest(self, history: History) -> Composition | None:
        """The next single, or the next survivor on top of those kept."""
        self._limits.learn(history)
        first = max(1, int(SHARE * history.budget))
        if len(history) < first and (single := self._singles.next(history)) is not None:
            return single
        if any(number < first for number in history.in_flight):
            return None  # the best cannot be told before all are known
        if self._walk is None:
            found = survivors(
                self._space, [history[n] for n in range(min(first, len(history)))], history.baseline
            )
            steps = [site.cut(level) for site, level in found]
            self._walk = KeepOrRevert(steps, self._space.max_interventions, is_better)
        return self._walk.next(history) or self._singles.next(history)

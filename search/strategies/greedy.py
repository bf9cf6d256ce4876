"""The LASER paper's composition: last layer down, smallest rho first, keep what helps."""

from __future__ import annotations

from search.cuts.composition import Composition
from search.strategies.base import History, Setting, Strategy
from search.strategies.keep_or_revert import KeepOrRevert, is_better


class Greedy(Strategy):
    """One pass over the sites from the last layer to the first, each from the smallest level up.

    A cut stays if, on top of those kept before, the score rises, or is the same at a lower
    log-loss; then the next site follows (Sharma et al. 2024, composition "from the largest layer
    and the smallest rho"). Ends when `max_interventions` are kept.
    """

    name = "greedy"

    def __init__(self, setting: Setting) -> None:
        """Over the space of `setting`; a range of rho at the steps of its ladder."""
        space = setting.space
        sites = sorted(space.sites, key=lambda site: -site.depth)
        rising = [level for family in space.ladder.families for level in reversed(family)]
        steps = [site.cut(level) for site in sites for level in rising]
        self._walk = KeepOrRevert(steps, space.max_interventions, is_better)

    def suggest(self, history: History) -> Composition | None:
        """The next cut on top of those kept."""
        return self._walk.next(history)

"""The neighbourhood of the best: a level's step, a layer up or down, a choice more or less."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator

from search.cuts.composition import Composition
from search.space import Choice, Site, Space, overlap
from search.strategies.base import History, Setting, Strategy, Tried
from search.strategies.limits import REFUSED, Limits, share_used


class Refine(Strategy):
    """What differs by one step from the best trial, then from the next best, and so on.

    A better trial found on the way becomes the best, and its neighbours come first. Those that the
    floors will refuse are passed over.
    """

    def __init__(self, setting: Setting, limits: Limits | None = None) -> None:
        """In the space of `setting`. `limits`: those of a strategy that learns them itself."""
        self._setting = setting
        self._own = limits is None
        self._limits = limits or Limits(setting)
        self._spent: set[int] = set()  # trials all of whose neighbours are known

    def suggest(self, history: History) -> Composition | None:
        """A new neighbour of the best trial that has one."""
        space = self._setting.space
        if self._own:
            self._limits.learn(history)
        refused: set[int] = set()  # for now: chances change with what is learnt
        while (base := self._base(history, refused)) is not None:
            choices = space.choices(base.composition) or []
            used, is_spent = share_used(base, history) or 0.0, True
            for near in neighbours(space, choices, f"{self._setting.seed}/{base.number}"):
                composition = space.cut(near)
                if history.is_new(composition):
                    is_spent = False
                    if self._limits.chance(near, base, used) >= REFUSED:
                        return composition
            (self._spent if is_spent else refused).add(base.number)
        return None

    def _base(self, history: History, refused: Collection[int]) -> Tried | None:
        best: Tried | None = None
        for tried in history:
            if tried.number in self._spent or tried.number in refused or not tried.counts:
                continue
            if best is None or tried.merit > best.merit:
                if self._setting.space.choices(tried.composition) is None:
                    self._spent.add(tried.number)
                else:
                    best = tried
        return best


def neighbours(space: Space, choices: list[Choice], seed: str) -> Iterator[list[Choice]]:
    """Choices that differ by one step: the level, then fewer, then the layer, then one more."""
    for place, (site, level) in enumerate(choices):
        for near in space.ladder.next_to(level):
            yield [*choices[:place], (site, near), *choices[place + 1 :]]
    if len(choices) > 1:
        for place in range(len(choices)):
            yield [*choices[:place], *choices[place + 1 :]]
    for place, (site, level) in enumerate(choices):
        rest = [*choices[:place], *choices[place + 1 :]]
        for other in _beside(space, site):
            if not overlap(other, rest):
                yield [*rest, (other, level)]
    if len(choices) < space.max_interventions:
        more = [
            (site, level)
            for site in space.sites
            if not overlap(site, choices)
            for level in space.levels
        ]
        random.Random(seed).shuffle(more)  # noqa: S311  # reproducible, not secret
        for choice in more:
            yield [*choices, choice]


def _beside(space: Space, site: Site) -> list[Site]:
    """The sites one layer down and up that are the same but for the layer."""
    found = []
    for step in (-1, 1):
        wanted = {
            (ref.stack, ref.layer + step, ref.type, ref.cross, ref.expert) for ref in site.matrices
        }
        for other in space.sites:
            own = {(r.stack, r.layer, r.type, r.cross, r.expert) for r in other.matrices}
            if own == wanted:
                found.append(other)
    return found

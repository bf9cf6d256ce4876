"""The neighbourhood of the best: a level's step, a layer up or down, a choice more or less."""

from __future__ import annotations

import random
from bisect import insort
from collections.abc import Iterator

from search.cuts.composition import Composition
from search.space import Choice, Site, Space, overlap
from search.strategies.base import History, Setting, Strategy, Tried
from search.strategies.finished import Finished
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
        self._finished = Finished()
        self._ranked: list[tuple[float, float, int]] = []  # minus the merit: the best first
        self._around: dict[int, _Neighbours] = {}

    def suggest(self, history: History) -> Composition | None:
        """A new neighbour of the best trial that has one."""
        if self._own:
            self._limits.learn(history)
        for tried in self._finished.next(history):
            if tried.counts:
                score, log_loss = tried.merit
                insort(self._ranked, (-score, -log_loss, tried.number))
        for place in list(self._ranked):
            around = self._near(history[place[2]], history)
            if (found := around.next(history, self._limits)) is not None:
                return found
            if around.is_spent:
                self._ranked.remove(place)
                del self._around[place[2]]
        return None

    def _near(self, base: Tried, history: History) -> _Neighbours:
        if base.number not in self._around:
            seed, used = f"{self._setting.seed}/{base.number}", share_used(base, history) or 0.0
            self._around[base.number] = _Neighbours(self._setting.space, base, seed, used)
        return self._around[base.number]


class _Neighbours:
    """Those of one trial, in order. What was tried is never new again, so it is dropped.

    What the floors will refuse waits until chances have changed.
    """

    def __init__(self, space: Space, base: Tried, seed: str, used: float) -> None:
        self._space = space
        self._choices = space.choices(base.composition) or []
        self._used = used
        self._rest = neighbours(space, self._choices, seed) if self._choices else iter(())
        self._waiting: list[list[Choice]] = []
        self._refused = 0  # of those that wait so many are refused, as of `_version` of the limits
        self._version = -1
        self.is_spent = False

    def next(self, history: History, limits: Limits) -> Composition | None:
        """The first that is new and likely enough."""
        if self._version != limits.version:
            self._refused, self._version = 0, limits.version
        while self._refused < len(self._waiting) or self._go_on():
            near = self._waiting[self._refused]
            if limits.chance(near, self._choices, self._used) < REFUSED:
                self._refused += 1
                continue
            composition = self._space.cut(near)
            if history.is_new(composition):
                return composition
            del self._waiting[self._refused]
        self.is_spent = not self._waiting
        return None

    def _go_on(self) -> bool:
        near = next(self._rest, None)
        if near is not None:
            self._waiting.append(near)
        return near is not None


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

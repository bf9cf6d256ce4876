"""The neighbourhood of the best: a step of rho, a layer up or down, one choice more or less."""

from __future__ import annotations

import random
from collections.abc import Iterator

from search.composition import Composition
from search.config import RhoRange
from search.space import Choice, Site, Space, overlap
from search.strategies.base import History, Setting, Tried

FINER = 16
"""Steps that a continuous rho is divided into here."""


class Refine:
    """What differs by one step from the best trial, then from the next best, and so on.

    A better trial found on the way becomes the best, and its neighbours come first.
    """

    def __init__(self, setting: Setting) -> None:
        """In the space of `setting`."""
        self._setting = setting
        self._spent: set[int] = set()  # trials all of whose neighbours are known

    def suggest(self, history: History) -> Composition | None:
        """A new neighbour of the best trial that has one."""
        space = self._setting.space
        while (base := self._base(history)) is not None:
            choices = space.choices(base.composition) or []
            for near in neighbours(space, choices, f"{self._setting.seed}/{base.number}"):
                composition = space.cut(near)
                if history.is_new(composition):
                    return composition
            self._spent.add(base.number)
        return None

    def _base(self, history: History) -> Tried | None:
        best: Tried | None = None
        for tried in history:
            if tried.number in self._spent or not tried.counts:
                continue
            if best is None or tried.merit > best.merit:
                if self._setting.space.choices(tried.composition) is None:
                    self._spent.add(tried.number)
                else:
                    best = tried
        return best


def neighbours(space: Space, choices: list[Choice], seed: str) -> Iterator[list[Choice]]:
    """Choices that differ by one step: rho, then fewer, then the layer, then one more."""
    for place, (site, rho) in enumerate(choices):
        for value in _next_to(space, rho):
            yield [*choices[:place], (site, value), *choices[place + 1 :]]
    if len(choices) > 1:
        for place in range(len(choices)):
            yield [*choices[:place], *choices[place + 1 :]]
    for place, (site, rho) in enumerate(choices):
        rest = [*choices[:place], *choices[place + 1 :]]
        for other in _beside(space, site):
            if not overlap(other, rest):
                yield [*rest, (other, rho)]
    if len(choices) < space.max_interventions:
        more = [
            (site, rho)
            for site in space.sites
            if not overlap(site, choices)
            for rho in space.levels
        ]
        random.Random(seed).shuffle(more)  # noqa: S311  # reproducible, not secret
        for choice in more:
            yield [*choices, choice]


def _next_to(space: Space, rho: float) -> list[float]:
    """The values of rho next to one, the smaller first."""
    if isinstance(space.rho, RhoRange):
        low, high = space.rho.low, space.rho.high
        step = (high / low) ** (1 / FINER)
        return [min(high, max(low, value)) for value in (rho / step, rho * step)]
    values = sorted(space.rho)
    place = values.index(rho)
    return [values[n] for n in (place - 1, place + 1) if 0 <= n < len(values)]


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

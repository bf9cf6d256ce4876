"""Every single choice of a space, in an order that a stopped run can be read from."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from search.cuts.composition import Composition, Intervention
from search.cuts.level import Level
from search.space import Choice, Space
from search.strategies.base import History, Setting
from search.strategies.limits import LIKELY, REFUSED, Limits

T = TypeVar("T", bound=Hashable)


def coarse_to_fine(space: Space) -> list[Choice]:
    """All (site, level), each once: wherever it is cut off, the table is whole at some resolution.

    First the ends and the middle of layers and of each family of levels, for every type; then
    halves of what is between, of both at once.
    """
    layers = _depths(sorted({site.depth for site in space.sites}))
    depths: dict[Level, int] = {}
    for family in space.ladder.families:
        depths |= _depths(family[::-1])
    places = {level: place for place, level in enumerate(reversed(space.levels))}

    def order(choice: Choice) -> tuple[int, int, int]:
        site, level = choice
        coarse = max(layers[site.depth], depths[level])
        return (coarse, depths[level] + layers[site.depth], places[level])

    # Sorting is stable: sites of one layer stay in their order.
    return sorted(((site, level) for site in space.sites for level in space.levels), key=order)


def screened(space: Space) -> tuple[Intervention, ...]:
    """What a screen has to predict: every matrix at every level, of a budget at many ranks."""
    if space.budget is not None:
        return space.budget.screened()
    return tuple(Intervention(ref, level) for ref in space.matrices for level in space.levels)


def by_screen(space: Space, screen: Mapping[Intervention, float]) -> list[Choice]:
    """All (site, level), what lowers the loss most by prediction first; a group adds up."""
    return sorted(coarse_to_fine(space), key=lambda choice: predicted(choice, screen))


def predicted(choice: Choice, screen: Mapping[Intervention, float]) -> float:
    """The change of the loss that a screen predicts."""
    site, level = choice
    return sum(screen.get(cut, 0.0) for cut in site.cut(level))


class Singles:
    """Every single cut once: what promises most first, and last what the floors will refuse.

    A cut promises the gain that a screen predicts, times its chance to keep every floor; those that
    are likely to keep them come before the others. Without a screen they go from coarse to fine.
    """

    def __init__(self, setting: Setting, limits: Limits) -> None:
        """Over the space of `setting`. `limits` has learnt what the history says when it asks."""
        space, screen = setting.space, setting.screen
        self._limits = limits
        ordered = coarse_to_fine(space) if screen is None else by_screen(space, screen)
        self._gains = [(one, 0.0 if screen is None else -predicted(one, screen)) for one in ordered]
        self._space = space
        self._left = list(range(len(ordered)))

    def next(self, history: History) -> Composition | None:
        """The first that is new, None if none is."""
        first: tuple[int, float] | None = None
        found: Composition | None = None
        known: set[int] = set()
        for place in self._left:
            choice, gain = self._gains[place]
            if first is not None and first <= (0, -gain):
                break  # no later one is more likely than sure, nor has a larger gain
            rank = self._rank(choice, gain)
            if first is None or rank < first:
                composition = self._space.cut([choice])
                if history.is_new(composition):
                    first, found = rank, composition
                else:
                    known.add(place)  # for good, since a history only grows
        if known:
            self._left = [place for place in self._left if place not in known]
        return found

    def _rank(self, choice: Choice, gain: float) -> tuple[int, float]:
        chance = self._limits.chance([choice])
        tier = (chance < LIKELY) + (chance < REFUSED)
        return tier, -(gain * chance if gain > 0 else gain)


def _depths(values: Sequence[T]) -> dict[T, int]:
    """How many halvings of the index range it takes to reach each value; the ends take none."""
    found = {values[0]: 0, values[-1]: 0}
    parts, depth = [(0, len(values) - 1)], 0
    while parts:
        depth += 1
        halves = []
        for low, high in parts:
            if high - low > 1:
                middle = (low + high) // 2
                found[values[middle]] = depth
                halves += [(low, middle), (middle, high)]
        parts = halves
    return found

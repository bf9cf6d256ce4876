"""Every single choice of a space, in an order that a stopped run can be read from."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from search.cuts.composition import Intervention
from search.cuts.level import Level
from search.space import Choice, Space

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

    def predicted(choice: Choice) -> float:
        site, level = choice
        return sum(screen.get(cut, 0.0) for cut in site.cut(level))

    return sorted(coarse_to_fine(space), key=predicted)


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

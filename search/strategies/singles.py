"""Every single choice of a space, in an order that a stopped run can be read from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from search.composition import Intervention
from search.space import Choice, Space
from search.weights.ranks import RankRule
from search.weights.refs import MatrixRef


def coarse_to_fine(space: Space) -> list[Choice]:
    """All (site, rho), each once: wherever it is cut off, the table is whole at some resolution.

    First the ends and the middle of layers and of rho, for every type; then halves of what is
    between, of both at once.
    """
    layers = _depths(sorted({site.depth for site in space.sites}))
    levels = _depths(sorted(space.levels))

    def order(choice: Choice) -> tuple[int, int, float]:
        site, rho = choice
        coarse = max(layers[site.depth], levels[rho])
        return (coarse, levels[rho] + layers[site.depth], rho)

    # Sorting is stable: sites of one layer stay in their order.
    return sorted(((site, rho) for site in space.sites for rho in space.levels), key=order)


def screened(space: Space) -> tuple[Intervention, ...]:
    """What a screen has to predict: every matrix of the space at every level of rho."""
    return tuple(
        Intervention(ref, RankRule("rho", rho), space.kind)
        for ref in space.matrices
        for rho in space.levels
    )


def by_screen(space: Space, screen: Mapping[tuple[MatrixRef, float], float]) -> list[Choice]:
    """All (site, rho), what lowers the loss most by prediction first; a group adds up."""

    def predicted(choice: Choice) -> float:
        site, rho = choice
        return sum(screen.get((ref, rho), 0.0) for ref in site.matrices)

    return sorted(coarse_to_fine(space), key=predicted)


def _depths(values: Sequence[float]) -> dict[float, int]:
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

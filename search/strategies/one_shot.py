"""A budget divided at once, as a gradient predicts what each matrix loses with each rank."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from search.budget import Budget, ladder
from search.cuts.composition import Composition, Intervention
from search.cuts.level import Level
from search.cuts.rules import RankRule

Screen = Mapping[Intervention, float]


def one_shots(budget: Budget, screen: Screen) -> list[Composition]:
    """For each share and kind, the allocation that a screen predicts to be best."""
    damages = {kind: damage(budget, screen, kind) for kind in budget.kinds}
    return [
        budget.composition(budget.allocate(damages[kind], kept), kind)
        for kept in budget.kept
        for kind in budget.kinds
    ]


def damage(budget: Budget, screen: Screen, kind: str) -> list[list[float]]:
    """By matrix and step: how far the loss moves when all beyond the step is cut.

    The sum of the sizes of the changes that a gradient predicts, from rank to rank. Signs are left
    out: gains to first order do not come true in cuts as large as these (docs/log.md).
    """
    found = []
    for ref, shape, top in zip(budget.refs, budget.shapes, budget.tops, strict=True):
        ranks = ladder(min(shape))
        changes = [
            screen.get(Intervention(ref, Level(RankRule("rank", float(rank)), kind)), 0.0)
            for rank in ranks
        ]
        beyond = [0.0] * len(ranks)
        for n in range(len(ranks) - 2, -1, -1):
            beyond[n] = beyond[n + 1] + abs(changes[n + 1] - changes[n])
        found.append([*(_between(ranks, beyond, step) for step in range(1, top)), 0.0])
    return found


def _between(x: Sequence[int], y: Sequence[float], at: int) -> float:
    """The value at a place among those that rise from 1, linear between them."""
    n = bisect_left(x, at)
    if x[n] == at:
        return y[n]
    share = (at - x[n - 1]) / (x[n] - x[n - 1])
    return y[n - 1] + share * (y[n] - y[n - 1])

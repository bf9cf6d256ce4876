"""A budget divided at once: as a gradient predicts what each rank is worth, and halfway there."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from search.budget import Allocation, Budget
from search.cuts.composition import Composition, Intervention

Screen = Mapping[Intervention, float]


def one_shots(budget: Budget, screen: Screen) -> list[Composition]:
    """What a screen predicts to be best: for each share and kind by damage, then by zero sum.

    Then both again, halfway between them and the same share of every matrix: a gradient knows who
    needs more, but far from the unedited model not how much.
    """
    predicted = {kind: predictions(budget, screen, kind) for kind in budget.kinds}
    damages = {kind: damage(budget, found) for kind, found in predicted.items()}
    wanted = [(kept, kind) for kept in budget.kept for kind in budget.kinds]
    steps = [(budget.allocate(damages[kind], kept), kind) for kept, kind in wanted]
    steps += [(zero_sum(budget, predicted[kind], kept), kind) for kept, kind in wanted]
    steps += [
        (halfway(budget, found, kept), kind)
        for (found, kind), (kept, _) in zip(steps, wanted + wanted, strict=True)
    ]
    return [budget.composition(found, kind) for found, kind in steps]


def halfway(budget: Budget, steps: Allocation, kept: float) -> Allocation:
    """Between an allocation and the uniform one: each matrix has the mean of its two shares."""
    shares = zip(budget.shares(steps), budget.shares(budget.uniform(kept)), strict=True)
    return budget.project([(one + other) / 2 for one, other in shares], kept)


@dataclass(frozen=True)
class Predicted:
    """What a gradient predicts of one matrix: the change of the loss, in nats, at `ranks`.

    `ranks` rise from 1 to the full rank; between two of them `changes` are taken as linear.
    """

    ranks: Sequence[int]
    changes: Sequence[float]


def predictions(budget: Budget, screen: Screen, kind: str) -> list[Predicted]:
    """By matrix what a screen says of it, at the ranks that it has; without any, no change."""
    found: dict[object, dict[int, float]] = defaultdict(dict)
    for cut, change in screen.items():
        if cut.kind == kind and cut.rule.name == "rank":
            found[cut.matrix][int(cut.rule.value)] = change
    predicted = []
    for ref, shape in zip(budget.refs, budget.shapes, strict=True):
        own = {min(shape): 0.0} | found[ref]
        own.setdefault(1, own[min(own)])
        ranks = sorted(own)
        predicted.append(Predicted(ranks, [own[rank] for rank in ranks]))
    return predicted


def damage(budget: Budget, predicted: Sequence[Predicted]) -> list[list[float]]:
    """By matrix and step: how far the loss moves when all beyond the step is cut.

    The sum of the sizes of the changes that a gradient predicts, from rank to rank. Signs are left
    out: gains to first order do not come true in cuts as large as these (docs/log.md).
    """
    found = []
    for own, top in zip(predicted, budget.tops, strict=True):
        beyond = [0.0] * len(own.ranks)
        for n in range(len(own.ranks) - 2, -1, -1):
            beyond[n] = beyond[n + 1] + abs(own.changes[n + 1] - own.changes[n])
        found.append([*(_between(own.ranks, beyond, step) for step in range(1, top)), 0.0])
    return found


def zero_sum(budget: Budget, predicted: Sequence[Predicted], kept: float) -> Allocation:
    """The allocation of ZS-SVD (Abbasi et al. 2026): components dropped one by one.

    Of each matrix from its last component on. Two heaps hold every matrix's next component, by
    whether dropping it is predicted to lower the loss or not, the smallest change first. While the
    changes so far add up to at most zero, one that does not lower it is dropped, else one that
    does; where one heap is empty, from the other.
    """
    ranks = [min(shape) for shape in budget.shapes]
    goal, stored, running = budget.limit(kept), budget.total, 0.0
    heaps: tuple[list[tuple[float, int, float]], ...] = ([], [])

    def size(place: int) -> int:
        return budget.cost(place, min(ranks[place], budget.tops[place]))

    def push(place: int) -> None:
        own, rank = predicted[place], ranks[place]
        if rank > 1:
            change = _between(own.ranks, own.changes, rank - 1)
            change -= _between(own.ranks, own.changes, rank)
            heappush(heaps[change >= 0], (abs(change), place, change))

    for place in range(len(ranks)):
        push(place)
    while stored > goal and any(heaps):
        _, place, change = heappop(heaps[running <= 0] or heaps[running > 0])
        stored -= size(place)
        ranks[place] -= 1
        stored += size(place)
        running += change
        push(place)
    steps = tuple(min(rank, top) for rank, top in zip(ranks, budget.tops, strict=True))
    return budget.fill(steps, kept, budget.shares(steps))


def _between(x: Sequence[int], y: Sequence[float], at: int) -> float:
    """The value at a place among those that rise from 1, linear between them."""
    n = bisect_left(x, at)
    if x[n] == at:
        return y[n]
    share = (at - x[n - 1]) / (x[n] - x[n - 1])
    return y[n - 1] + share * (y[n] - y[n - 1])

"""A budget: how many parameters of a space's matrices are stored, and how they are divided.

A matrix [m, n] of rank r is stored as two thin factors of r (m + n) parameters where these are
fewer than m n, else as it is. Its *steps* are the ranks 1, 2, ... that save something, and after
them the whole matrix, uncut. An *allocation* has one step for each matrix.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from search.cuts.composition import Composition, Intervention
from search.cuts.kinds.base import Kind
from search.cuts.kinds.registry import get_kind, kind_names
from search.cuts.level import PLAIN, Level
from search.cuts.refs import MatrixRef
from search.cuts.rules import RankRule
from search.sections import BudgetConfig
from tasks.errors import InputError

Allocation = tuple[int, ...]
"""A step for each matrix, in the order of the budget's matrices."""

SLACK = 1e-9
"""Against binary rounding of shares."""

SCREENED = 128
"""Ranks of each matrix that a screen predicts, evenly spaced."""


@dataclass(frozen=True)
class Read:
    """What a composition is in a budget: its allocation, its kind, and which share it is for."""

    steps: Allocation
    kind: str
    kept: float


@dataclass(frozen=True)
class Budget:
    """Shares `kept` of the parameters of `refs` with `shapes` [out, in], the largest share first.

    `kinds`: how matrices are cut, all of one composition alike.
    """

    refs: tuple[MatrixRef, ...]
    shapes: tuple[tuple[int, int], ...]
    kept: tuple[float, ...]
    kinds: tuple[str, ...] = (PLAIN,)

    @staticmethod
    def build(
        config: BudgetConfig, refs: Sequence[MatrixRef], shapes: Sequence[tuple[int, int]]
    ) -> Budget:
        """The budget of a configuration over these matrices. Raises InputError.

        Refused are kinds that do not keep leading ranks, and shares that cannot be reached.
        """
        for name in config.kinds:
            if not _keeps_leading_ranks(get_kind(name)):
                known = [n for n in kind_names() if _keeps_leading_ranks(get_kind(n))]
                raise InputError(
                    f"space.budget.kind holds {name!r}, which does not keep the first ranks of its "
                    f"factors, so that no rank is its size; expected {' or '.join(known)}"
                )
        shares = tuple(sorted(set(config.shares), reverse=True))
        budget = Budget(tuple(refs), tuple(shapes), shares, config.kinds)
        least = sum(budget.cost(place, 1) for place in range(len(refs)))
        if least > budget.limit(shares[-1]):
            raise InputError(
                f"space.budget.kept {shares[-1]:g} is less than these {len(refs)} matrices take at "
                f"rank 1, which is {least / budget.total:.4g} of their parameters; give more, or "
                "leave small matrices out of the space"
            )
        if least == budget.total:
            raise InputError(
                f"space.budget has nothing to divide: none of these {len(refs)} matrices is "
                "smaller as two factors"
            )
        return budget

    # Sizes -------------------------------------------------------------------------------------

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Parameters of each whole matrix."""
        return tuple(out * into for out, into in self.shapes)

    @cached_property
    def total(self) -> int:
        """Parameters of all whole matrices."""
        return sum(self.sizes)

    @cached_property
    def tops(self) -> Allocation:
        """The last step of each matrix, which is the whole."""
        return tuple((out * into - 1) // (out + into) + 1 for out, into in self.shapes)

    def cost(self, place: int, step: int) -> int:
        """Parameters that the matrix at `place` takes at a step."""
        return self.sizes[place] if step >= self.tops[place] else step * sum(self.shapes[place])

    def stored(self, steps: Allocation) -> int:
        """Parameters that an allocation takes."""
        return sum(self.cost(place, step) for place, step in enumerate(steps))

    def limit(self, kept: float) -> int:
        """The most parameters that a share allows."""
        return math.floor(kept * self.total + SLACK * max(1.0, kept * self.total))

    def shares(self, steps: Allocation) -> list[float]:
        """What each matrix keeps of its parameters."""
        return [self.cost(n, step) / self.sizes[n] for n, step in enumerate(steps)]

    # Dividing it -------------------------------------------------------------------------------

    def uniform(self, kept: float) -> Allocation:
        """The same share of every matrix, up to a step; it fills the budget to the largest step."""
        return self.project([kept] * len(self.refs), kept, even=True)

    def project(self, wanted: Sequence[float], kept: float, *, even: bool = False) -> Allocation:
        """The allocation nearest to the `wanted` shares that fills the budget to a step.

        All shares are raised or lowered alike, as water finds its level, within what a matrix can
        have; the level is found by bisection. What is left by rounding ranks down goes to those
        that are farthest below; `even`: to none that is above already, small as its step may be.
        """
        sizes = np.array(self.sizes, dtype=float)
        lowest = np.array([self.cost(n, 1) for n in range(len(sizes))]) / sizes
        aim, goal = np.asarray(wanted, dtype=float), self.limit(kept)

        def at(level: float) -> NDArray[np.float64]:
            return np.clip(aim + level, lowest, 1.0)

        low, high = -1.0 - float(aim.max()), 1.0 - min(0.0, float(aim.min()))
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if at(middle) @ sizes <= goal else (low, middle)
        steps = tuple(self._below(n, share) for n, share in enumerate(at(low).tolist()))
        return self.fill(steps, kept, (aim + low).tolist(), even=even)

    def _below(self, place: int, share: float) -> int:
        """The largest step whose share is at most `share`, up to rounding; at least 1."""
        top = self.tops[place]
        if share >= 1 - SLACK:
            return top
        ranks = share * self.sizes[place] / sum(self.shapes[place])
        return max(1, min(top - 1, math.floor(ranks + SLACK)))

    def fill(
        self, steps: Allocation, kept: float, wanted: Sequence[float], *, even: bool = False
    ) -> Allocation:
        """Raise single steps until none fits, each time of the matrix farthest below its share.

        `even`: only of those that are below it.
        """
        found, left = list(steps), self.limit(kept) - self.stored(steps)
        while True:
            fit = [
                n
                for n, step in enumerate(found)
                if step < self.tops[n]
                and self._next(n, step) <= left
                and not (even and wanted[n] - self.cost(n, step) / self.sizes[n] <= SLACK)
            ]
            if not fit:
                return tuple(found)
            place = max(fit, key=lambda n: (wanted[n] - self.cost(n, found[n]) / self.sizes[n], -n))
            left -= self._next(place, found[place])
            found[place] += 1

    def allocate(self, damage: Sequence[Sequence[float]], kept: float) -> Allocation:
        """One shot: parameters go where they save the most `damage` each, over all matrices.

        `damage[n][k - 1]`: what is lost with matrix n at step k. Its lower convex hull is taken,
        because ranks are kept from the first on: what follows may be worth more than the next.
        """
        spans: list[tuple[float, int, int]] = []
        for place, losses in enumerate(damage):
            costs = [self.cost(place, step) for step in range(1, self.tops[place] + 1)]
            for first, last in pairwise(_hull(costs, losses)):
                worth = (losses[first] - losses[last]) / (costs[last] - costs[first])
                spans.append((worth, place, last + 1))
        steps = [1] * len(self.refs)
        left = self.limit(kept) - self.stored(tuple(steps))
        for _, place, step in sorted(spans, key=lambda span: (-span[0], span[1], span[2])):
            need = self.cost(place, step) - self.cost(place, steps[place])
            if need > left:  # as far as it goes, and no farther with any other
                while (m := self._next(place, steps[place])) <= left:
                    steps[place], left = steps[place] + 1, left - m
                break
            steps[place], left = step, left - need
        return self.fill(tuple(steps), kept, self.shares(tuple(steps)))

    def _next(self, place: int, step: int) -> int:
        return self.cost(place, step + 1) - self.cost(place, step)

    def draw(
        self, rng: random.Random, kept: float, near: Allocation | None = None, spread: float = 1.0
    ) -> Allocation:
        """A seeded allocation: of uniform shares, or of those of `near` moved by about `spread`."""
        if near is None:
            return self.project([rng.random() for _ in self.refs], kept)
        moved = [share + rng.gauss(0.0, spread) for share in self.shares(near)]
        return self.project(moved, kept)

    # Compositions ------------------------------------------------------------------------------

    def composition(self, steps: Allocation, kind: str) -> Composition:
        """An allocation as cuts; what is whole is not cut."""
        return Composition(
            tuple(
                Intervention(ref, Level(RankRule("rank", float(step)), kind))
                for ref, step, top in zip(self.refs, steps, self.tops, strict=True)
                if step < top
            )
        )

    def read(self, composition: Composition) -> Read | None:
        """What a composition is here; None if it is no allocation, or above every share."""
        places = {ref: place for place, ref in enumerate(self.refs)}
        steps = list(self.tops)
        kinds = {cut.kind for cut in composition.interventions}
        if len(kinds) != 1 or not kinds <= set(self.kinds):
            return None
        for cut in composition.interventions:
            place, rank = places.get(cut.matrix), int(cut.rule.value)
            if place is None or cut.rule.name != "rank" or not 1 <= rank < self.tops[place]:
                return None
            steps[place] = rank
        kept = self.holding(self.stored(tuple(steps)) / self.total)
        return None if kept is None else Read(tuple(steps), kinds.pop(), kept)

    def holding(self, share: float) -> float | None:
        """The smallest of the shares that holds `share` of all parameters, None if none does."""
        return holding(self.kept, share)

    def screened(self) -> tuple[Intervention, ...]:
        """What a screen has to predict: every matrix at ranks from 1 to all."""
        return tuple(
            Intervention(ref, Level(RankRule("rank", float(rank)), kind))
            for ref, shape in zip(self.refs, self.shapes, strict=True)
            for kind in self.kinds
            for rank in ladder(min(shape))
        )


def holding(shares: Sequence[float], share: float) -> float | None:
    """The smallest of `shares` that is at least `share`, up to rounding; None if none is."""
    return min((one for one in shares if share <= one + SLACK), default=None)


def ladder(full: int) -> list[int]:
    """At most SCREENED ranks from 1 to `full`, evenly spaced."""
    count = min(SCREENED, full)
    if count == 1:
        return [full]
    return sorted({round(1 + (full - 1) * n / (count - 1)) for n in range(count)})


def _hull(x: Sequence[float], y: Sequence[float]) -> list[int]:
    """Places of the lower convex hull of points whose x rises."""
    found: list[int] = []
    for n in range(len(x)):
        while len(found) > 1:
            a, b = found[-2], found[-1]
            if (y[b] - y[a]) * (x[n] - x[a]) < (y[n] - y[a]) * (x[b] - x[a]):
                break
            found.pop()
        found.append(n)
    return found


def _keeps_leading_ranks(kind: Kind) -> bool:
    return "rank" in kind.rules and kind.kept(RankRule("rank", 1.0), (3, 3)) == range(1)

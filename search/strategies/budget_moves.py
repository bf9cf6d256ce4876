"""A whole model within a budget: uniform, as a gradient predicts, then moves that keep the budget.

A move takes parameters from one matrix and gives them to another, or from many to many that are
alike: of one type or of neighbouring layers. A trial makes a block of moves (Sieberling et al.
2025, EvoPress). Better trials become the base of what follows.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from optuna.trial import TrialState

from search.budget import Allocation, Read
from search.cuts.composition import Composition
from search.strategies.base import History, Setting, Strategy, Tried
from search.strategies.novelty import unseen
from search.strategies.one_shot import one_shots
from search.strategies.queue import Queue

DRAWS = 300
"""Blocks that are drawn before the neighbourhood counts as known."""


@dataclass(frozen=True)
class Pace:
    """How far moves go, as a share of what a matrix has on average.

    `first`: at the beginning and at most. After a better trial it grows by `more`, after any other
    it shrinks by `less`, down to `least`. `blocks`: the most moves at once, as a share of the
    matrices. `broad`: how often a trial moves between sets of matrices. `switch`: how often a trial
    has the base's allocation with another kind of cut.
    """

    first: float = 0.5
    more: float = 1.5
    less: float = 0.94
    least: float = 0.02
    blocks: float = 0.2
    broad: float = 0.5
    switch: float = 0.1


@dataclass(frozen=True)
class _Base:
    """The best trial of a share so far, if any, and how far the next moves go."""

    number: int
    at: Read
    spread: float


class BudgetMoves(Strategy):
    """Begins with every share uniform, then one shot by the screen, for each kind of cut.

    One shot: the change of the loss that a gradient predicts per parameter saved, pooled over all
    matrices. Then shares take turns, each with moves from its own best trial. What was no better is
    tried the other way round once: to first order it is better then. Without a screen there is no
    one shot. Where scores are hits and misses, the best trial to move from is that of the lowest
    log-loss.
    """

    name = "budget"
    wants_screen = True
    takes_budget = True

    def __init__(self, setting: Setting, pace: Pace = Pace()) -> None:
        """Over the space of `setting`, which has a budget."""
        if setting.space.budget is None:
            raise ValueError("strategy budget needs a space with a budget")
        self._setting = setting
        self._pace = pace
        self._budget = budget = setting.space.budget
        first = [
            budget.composition(budget.uniform(kept), kind)
            for kept in budget.kept
            for kind in budget.kinds
        ]
        if setting.screen is not None:
            first += one_shots(budget, setting.screen)
        self._first = Queue(first)
        self._begins = frozenset(map(str, first))
        self._known: dict[int, Read | None] = {}
        self._reversed: set[tuple[int, int]] = set()  # known the other way round for good

    def suggest(self, history: History) -> Composition | None:
        """The next beginning, or moves from the best trial of the share whose turn it is."""
        if (proposed := self._first.next(history)) is not None:
            return proposed
        budget, number = self._budget, len(history)
        kept = budget.kept[number % len(budget.kept)]
        base = self._base(history, kept)
        for at in self._near(history, base, kept):
            proposed = budget.composition(at.steps, at.kind)
            if history.is_new(proposed):
                return proposed
        return unseen(self._setting.space, history, self._setting.seed)

    def _base(self, history: History, kept: float) -> _Base:
        """Follows from the trials of this share, in order of number."""
        pace, spread = self._pace, self._pace.first
        best: Tried | None = None
        for tried in self._of(history, kept):
            if best is None or self._order(tried) > self._order(best):
                if best is not None and str(tried.composition) not in self._begins:
                    spread = min(pace.first, spread * pace.more)
                best = tried if tried.state == TrialState.COMPLETE else best
            elif str(tried.composition) not in self._begins:
                spread = max(pace.least, spread * pace.less)
        if best is None or (at := self._read(best)) is None:
            return _Base(-1, Read(self._budget.uniform(kept), self._budget.kinds[0], kept), spread)
        return _Base(best.number, at, spread)

    def _order(self, tried: Tried) -> tuple[bool, tuple[float, ...]]:
        """By merit or log-loss; of what breaks a floor, what breaks them least; failures last."""
        if tried.counts:
            by_log_loss = self._setting.by_log_loss
            return (True, (-tried.log_loss, tried.values[0]) if by_log_loss else tried.merit)
        if tried.state != TrialState.COMPLETE:
            return (False, (-float("inf"),))
        return (False, (-sum(max(0.0, one) for one in tried.violations.values()),))

    def _of(self, history: History, kept: float) -> Iterator[Tried]:
        """The finished trials of a share."""
        for tried in history:
            if tried.state.is_finished():
                at = self._read(tried)
                if at is not None and at.kept == kept:
                    yield tried

    def _read(self, tried: Tried) -> Read | None:
        if tried.number not in self._known:
            self._known[tried.number] = self._budget.read(tried.composition)
        return self._known[tried.number]

    def _near(self, history: History, base: _Base, kept: float) -> Iterator[Read]:
        """First the reverse of what was no better, then blocks of moves, farther and farther."""
        kind, known = base.at.kind, [self._read(tried) for tried in history]
        for tried in self._of(history, kept):
            at, pair = self._read(tried), (base.number, tried.number)
            if tried.number < base.number or base.number < 0 or pair in self._reversed:
                continue
            if at is not None and at.kind == kind:
                steps = self._reverse(base.at.steps, at.steps, kept)
                if not any(one and one.kind == kind and _alike(steps, one.steps) for one in known):
                    yield Read(steps, kind, kept)
            self._reversed.add(pair)
        for attempt in range(DRAWS):
            rng = random.Random(f"{self._setting.seed}/{len(history)}/{attempt}")  # noqa: S311
            others = [kind for kind in self._budget.kinds if kind != base.at.kind]
            if others and rng.random() < self._pace.switch:
                yield Read(base.at.steps, rng.choice(others), kept)
            spread = base.spread * (1 + attempt / 50)
            yield Read(self.moved(rng, base.at.steps, kept, spread), base.at.kind, kept)

    def moved(
        self, rng: random.Random, steps: Allocation, kept: float, spread: float
    ) -> Allocation:
        """Moves from an allocation, within the budget: one between many matrices, or several.

        Those between two matrices are of at least one step each.
        """
        budget = self._budget
        shares = budget.shares(steps)
        each = spread * (budget.limit(kept) / len(steps))
        move = self._move_many if rng.random() < self._pace.broad else self._move_pairs
        move(rng, shares, each)
        return budget.project([min(1.0, max(0.0, share)) for share in shares], kept)

    def _move_pairs(self, rng: random.Random, shares: list[float], each: float) -> None:
        """About `each` parameters from one matrix to another, for several pairs of them."""
        budget, count = self._budget, len(shares)
        most = max(1, round(self._pace.blocks * count))
        for _ in range(min(rng.randint(1, most), rng.randint(1, most))):
            giver, taker = rng.randrange(count), rng.randrange(count)
            step = max(sum(budget.shapes[giver]), sum(budget.shapes[taker]))
            amount = max(step, each * rng.uniform(0.5, 1.5))
            shares[giver] -= amount / budget.sizes[giver]
            shares[taker] += amount / budget.sizes[taker]

    def _move_many(self, rng: random.Random, shares: list[float], each: float) -> None:
        """From a set of matrices to another, about `each` parameters of every matrix that gives."""
        budget = self._budget
        takers = self._group(rng)
        givers = [place for place in self._group(rng) if place not in takers]
        if not givers:
            givers = [place for place in range(len(shares)) if place not in takers]
        amount = each * rng.uniform(0.5, 1.5)
        given = 0.0
        for place in givers:
            given += (own := min(amount, shares[place] * budget.sizes[place]))
            shares[place] -= own / budget.sizes[place]
        room = sum(budget.sizes[place] for place in takers)
        for place in takers:
            shares[place] += given / room

    def _group(self, rng: random.Random) -> set[int]:
        """Places of the matrices around one that is drawn: of its type or of all, near layers.

        Half of the time within a quarter of the layers; not all matrices, unless there is one.
        """
        refs = self._budget.refs
        middle, one_type = rng.choice(refs), rng.random() < 0.5
        depth = len({ref.layer for ref in refs if not ref.is_outside})
        reach = depth * rng.random() ** 2
        near = {
            place
            for place, ref in enumerate(refs)
            if ref.stack == middle.stack and abs(ref.layer - middle.layer) <= reach
        }
        own = {place for place in near if not one_type or refs[place].type == middle.type}
        return own if len(own) < len(refs) else {refs.index(middle)}

    def _reverse(self, base: Allocation, tried: Allocation, kept: float) -> Allocation:
        here, there = self._budget.shares(base), self._budget.shares(tried)
        other = [2 * a - b for a, b in zip(here, there, strict=True)]
        return self._budget.project([min(1.0, max(0.0, share)) for share in other], kept)


def _alike(one: Allocation, other: Allocation) -> bool:
    return all(abs(a - b) <= 1 for a, b in zip(one, other, strict=True))

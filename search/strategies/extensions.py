"""Pairs of a good trial and a single cut that helped, kept in the order of what they promise."""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from search.cuts.composition import Composition
from search.space import Choice, Space, overlap
from search.strategies.base import History
from search.strategies.limits import REFUSED, Limits

Gain = tuple[float, float]
"""What a trial has over the unedited model: in score, and in log-loss."""

_Pair = tuple[float, float, int]
"""Minus the promised gains, so that a heap has the most first; the number of the single's trial."""


@dataclass
class _Base:
    """A good trial and what may be added to it.

    `settled`: pairs whose chance stays as it is. `open`: numbers of singles whose chance changes
    with what is learnt; `promising` are their pairs as of `version` of the limits.
    """

    gain: Gain
    number: int
    choices: list[Choice]
    used: float
    settled: list[_Pair] = field(default_factory=list)
    open: dict[int, None] = field(default_factory=dict)
    promising: list[_Pair] = field(default_factory=list)
    version: int = 0


class Extensions:
    """The new pair of one of the best trials and a single that helped whose gains add up to most.

    Times the chance that both together keep every floor. A pair that was tried is never new again,
    so it is dropped; nothing is reckoned again but chances that depend on what was learnt since.
    """

    def __init__(self, space: Space, limits: Limits, most: int) -> None:
        """Of the `most` best trials. `limits` has learnt what the history says when it asks."""
        self._space = space
        self._limits = limits
        self._most = most
        self._bases: list[_Base] = []
        self._helped: dict[int, tuple[Choice, Gain]] = {}

    def add_single(self, number: int, choice: Choice, gain: Gain) -> None:
        """A trial of a single cut that helped."""
        self._helped[number] = (choice, gain)
        for base in self._bases:
            self._pair(base, number)

    def add_base(self, number: int, choices: list[Choice], gain: Gain, used: float) -> None:
        """A trial that helped and has room for more, which used up a share of what floors allow."""
        base = _Base(gain, number, choices, used, version=self._limits.version)
        self._bases.append(base)
        self._bases.sort(key=lambda one: (one.gain, -one.number), reverse=True)
        del self._bases[self._most :]
        if base not in self._bases:
            return
        for single in self._helped:
            self._pair(base, single)

    def next(self, history: History) -> Composition | None:
        """The pair that promises most; of equals that of the earlier trial and single."""
        for base in self._bases:
            if base.version != self._limits.version:
                self._reckon(base)
        while heaps := [
            (b, pairs) for b in self._bases for pairs in (b.settled, b.promising) if pairs
        ]:
            base, pairs = min(heaps, key=lambda one: (one[1][0][:2], one[0].number, one[1][0][2]))
            single = pairs[0][2]
            composition = self._space.cut([*base.choices, self._helped[single][0]])
            if history.is_new(composition):
                return composition
            heappop(pairs)
            base.open.pop(single, None)
        return None

    def _pair(self, base: _Base, single: int) -> None:
        choice, _ = self._helped[single]
        if overlap(choice[0], base.choices):
            return
        if self._limits.is_settled(choice):
            pairs = base.settled
        else:
            base.open[single] = None
            pairs = base.promising
        if (pair := self._promise(base, single)) is not None:
            heappush(pairs, pair)

    def _promise(self, base: _Base, single: int) -> _Pair | None:
        choice, gain = self._helped[single]
        chance = self._limits.chance([*base.choices, choice], base.choices, base.used)
        if chance < REFUSED:
            return None
        return (-chance * (base.gain[0] + gain[0]), -chance * (base.gain[1] + gain[1]), single)

    def _reckon(self, base: _Base) -> None:
        """The pairs that are open once more, with what was learnt since."""
        pairs = [self._promise(base, single) for single in base.open]
        base.promising = [pair for pair in pairs if pair is not None]
        heapify(base.promising)
        base.version = self._limits.version

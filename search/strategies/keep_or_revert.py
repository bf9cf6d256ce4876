"""Candidates in a fixed order, each tried on top of what was kept before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from search.cuts.composition import Composition, Intervention
from search.strategies.base import History, Tried

Step = tuple[Intervention, ...]
Keeps = Callable[[Tried, Tried], bool]
"""Whether a trial (first) is kept over the best so far (second)."""


def is_better(new: Tried, old: Tried) -> bool:
    """A higher score, or the same and a lower log-loss."""
    return new.merit > old.merit


def is_no_worse(new: Tried, old: Tried) -> bool:
    """At least the score, and where that is the same at most the log-loss."""
    return new.counts and new.merit >= old.merit


class KeepOrRevert:
    """Keep or revert, one candidate after the other (coordinate-wise greedy search).

    While a candidate is in flight it is taken for rejected, as most are, so that several workers
    have work; if it is kept after all, what was begun meanwhile is evaluated again on top of it.
    """

    def __init__(self, steps: Sequence[Step], most: int, keeps: Keeps) -> None:
        """Try `steps` in order; keep at most `most` of them."""
        self._steps = steps
        self._most = most
        self._keeps = keeps
        self._place = 0  # before this everything is decided for good
        self._kept: tuple[Step, ...] = ()
        self._best: Tried | None = None

    def next(self, history: History) -> Composition | None:
        """The next candidate on top of what was kept; None at the end, or if it must wait."""
        best = self._best or history.baseline
        if best is None:
            return None
        kept, decided = self._kept, True
        for place in range(self._place, len(self._steps)):
            if len(kept) >= self._most:
                return None
            step = self._steps[place]
            if not _touches(step, kept):
                proposed = Composition(tuple(i for part in (*kept, step) for i in part))
                known = history.find(proposed)
                if known is None:
                    return proposed
                if not known.state.is_finished():
                    decided = False
                elif known.number != best.number and self._keeps(known, best):
                    kept, best = (*kept, step), known
            if decided:
                self._place, self._kept, self._best = place + 1, kept, best
        return None


def _touches(step: Step, kept: Sequence[Step]) -> bool:
    cut = {i.matrix for part in kept for i in part}
    return any(i.matrix in cut for i in step)

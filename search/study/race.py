"""Racing: a trial stops when it can hardly beat the best one known, on the evidence so far.

All trials see the same examples in the same seeded order, so a trial is compared with the incumbent
pair by pair (Maron & Moore 1994). After n of N examples the difference of the whole is estimated as
N times the mean paired difference, with the standard error of sampling without replacement. The
trial stops when the upper bound of that estimate is below zero. The bounds of all looks together
hold at the error level (Bonferroni): a trial that would have won is stopped in at most that share
of cases.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

from tasks.base import Outcome


def seeded_order(example_id: str) -> bytes:
    """Sort key of the one order in which every trial sees the examples."""
    return hashlib.blake2b(example_id.encode(), digest_size=16).digest()


LEAST_QUESTIONS = 64
"""Of a chunk: fewer say little, and make a poor batch."""
MOST_LOOKS = 8
"""More stop hardly more, and each is a report of its worker."""


def looks_at(questions: int) -> int:
    """In how many chunks a race asks this many questions; 1 where they are too few for a race."""
    return max(1, min(MOST_LOOKS, questions // LEAST_QUESTIONS))


@dataclass(frozen=True)
class Incumbent:
    """The best evaluation known. `scores`, `weights`: of its examples by id."""

    scores: Mapping[str, float]
    weights: Mapping[str, float]

    @staticmethod
    def of(
        outcomes: Iterable[Outcome], paired: Callable[[Outcome], float] = lambda one: one.score
    ) -> Incumbent:
        """The incumbent with these outcomes; `paired`: what of them is compared."""
        found = list(outcomes)
        return Incumbent(
            {o.example_id: paired(o) for o in found}, {o.example_id: o.weight for o in found}
        )

    def gain(self, scores: Mapping[str, float]) -> float:
        """What a trial with these `scores` gains over all, others than these being equal."""
        return math.fsum(self.differences(scores)) / len(self.scores)

    def differences(self, scores: Mapping[str, float]) -> list[float]:
        """Weighted paired differences of a trial's `scores` to these, weights of mean one."""
        mean = self._mean
        return [
            (score - self.scores[key]) * self.weights[key] / mean for key, score in scores.items()
        ]

    @cached_property
    def _mean(self) -> float:
        return sum(self.weights.values()) / len(self.weights)


@dataclass(frozen=True)
class Race:
    """`looks`: how often a trial is judged, `error`: the level for all of them together."""

    looks: int
    error: float = 0.05

    def is_lost(self, differences: Sequence[float], total: int) -> bool:
        """Whether paired differences of the first examples make a win among `total` improbable."""
        n = len(differences)
        if not 0 < n < total:
            return False
        # The second moment about zero, with one more difference of the largest size: a run of equal
        # answers must not pass for certainty.
        largest = max(map(abs, differences))
        square = (math.fsum(d * d for d in differences) + largest**2) / (n + 1)
        error = math.sqrt(square / n * (1 - n / total))
        z = NormalDist().inv_cdf(1 - self.error / max(1, self.looks - 1))
        return math.fsum(differences) / n + z * error < 0

"""How far the factors are, and how long the rest takes by what the finished ones took."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cluster.precompute import cost
from search.phases import Phases
from search.storing import Built
from search.weights.matrices import Matrix

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decomposed:
    """How many matrices were computed here, and how many were there or made by another."""

    computed: int
    ready: int
    seconds: float


class FactorCourse:
    """Tells a reporter of phases which matrices are decomposed.

    The time left goes by the work that SVDs of their shapes are, and by what was computed here:
    matrices that were ready took none.
    """

    def __init__(
        self,
        phases: Phases,
        matrices: Sequence[Matrix],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """The phase begins now; `clock` in seconds."""
        self._phases = phases
        self._clock = clock
        self._costs = {str(matrix.ref): cost(matrix) for matrix in matrices}
        self._left = sum(self._costs.values())
        self._worked = 0.0
        self._count = {True: 0, False: 0}
        self._started = clock()
        phases.enter("factors", len(self._costs))

    def built(self, built: Built) -> None:
        """Note a matrix that is ready now."""
        price = self._costs[built.address]
        self._left -= price
        self._worked += price if built.computed else 0.0
        self._count[built.computed] += 1
        left_s = None
        if self._worked:
            left_s = (self._clock() - self._started) * self._left / self._worked
        log.debug("%s %s", built.address, "computed" if built.computed else "was ready")
        done = sum(self._count.values())
        self._phases.advance(done, left_s=left_s, detail=built.address)

    def result(self) -> Decomposed:
        """The counts so far."""
        return Decomposed(self._count[True], self._count[False], self._clock() - self._started)

"""Rank rules: from a fraction, a count or a spectrum to the number of singular values kept."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tasks.errors import InputError, nearest

RULES = ("rho", "rank")


@dataclass(frozen=True, slots=True)
class RankRule:
    """How many singular values stay: `name` is one of RULES, `value` its parameter.

    ``rho``: fraction kept of the maximum rank, in [0, 1] (LASER, Sharma et al. 2024, eq. 1).
    ``rank``: a count, at least 0.
    """

    name: str
    value: float

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if self.name not in RULES:
            raise InputError(
                f"rank rule {self.name!r} does not exist; expected one of {', '.join(RULES)}"
                + nearest(self.name, RULES)
            )
        value = self.value
        if self.name == "rho" and not 0 <= value <= 1:
            raise InputError(f"rho {value} is outside [0, 1]; it is the fraction of rank kept")
        if self.name == "rank" and not (value >= 0 and float(value).is_integer()):
            raise InputError(f"rank {value} is no count; give a whole number of at least 0")

    def rank(self, max_rank: int) -> int:
        """Singular values kept of `max_rank` = min(out, in).

        For rho: floor(rho * max_rank) with a tolerance against binary rounding, so that 0.29 of 100
        is 29, and at least 1 for rho > 0: only rho 0 is the zero matrix.
        """
        if self.name == "rank":
            return min(int(self.value), max_rank)
        if self.value == 0:
            return 0
        exact = self.value * max_rank
        return min(max_rank, max(1, math.floor(exact + 1e-9 * max(1.0, exact))))

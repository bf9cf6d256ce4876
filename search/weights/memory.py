"""Factors that this process has read, kept in host memory up to a budget."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor

from search.weights.factors import FactorCache, Factors

BUDGET_BYTES = 2**30
"""One process's share; a machine may run several workers."""


class RowsInMemory:
    """The first rows of a factor file as private copies; stands in for the file."""

    def __init__(self, factors: Factors) -> None:
        self.shape = factors.shape
        self.spectrum = factors.spectrum
        self.rank = factors.rank
        # Copies, since mapped pages would follow a file that is altered or cut after its check.
        self._U, self._V = factors.U.clone(), factors.V.clone()

    def rows(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """U [stop - start, out] and V [stop - start, in]; ValueError beyond those kept."""
        if stop > self.rank and stop > start:
            raise ValueError(f"{self.rank} ranks are in memory, not {stop}")
        return self._U[start:stop], self._V[start:stop]


class FactorMemory:
    """Reads factors through a cache and keeps what was used last, up to `budget_bytes`.

    Kept rows are neither read nor checked again. Only prefixes are kept: what a rank above half
    takes from the tail is read each time. Not thread-safe.
    """

    def __init__(self, cache: FactorCache, budget_bytes: int = BUDGET_BYTES) -> None:
        self._cache = cache
        self._budget_bytes = budget_bytes
        self._kept: OrderedDict[str, Factors] = OrderedDict()
        self.held_bytes = 0

    def load(self, key: str, rank: int, *, holding: int = 0) -> Factors:
        """As `FactorCache.load`; at least `rank` rows are there."""
        known = self._kept.get(key)
        if known is not None and known.rank >= max(rank, holding):
            self._kept.move_to_end(key)
            return known
        factors = self._cache.load(key, rank, holding=holding)
        if rank == 0 or holding > rank or _bytes(factors) > self._budget_bytes:
            return factors
        self._drop(key)
        while self._kept and self.held_bytes + _bytes(factors) > self._budget_bytes:
            self._drop(next(iter(self._kept)))
        kept = Factors(RowsInMemory(factors), factors.rank, lambda error: None)
        self._kept[key] = kept
        self.held_bytes += _bytes(kept)
        return kept

    def _drop(self, key: str) -> None:
        factors = self._kept.pop(key, None)
        if factors is not None:
            self.held_bytes -= _bytes(factors)


def _bytes(factors: Factors) -> int:
    return 4 * factors.rank * sum(factors.shape)

"""Which bytes an intervention gives: the one place that says so, for trials and exports alike."""

from __future__ import annotations

import torch
from torch import Tensor

from search.composition import ITERATIONS, Intervention
from search.weights.factor_file import DamagedFactorsError, Factors
from search.weights.memory import BUDGET_BYTES, FactorMemory, FactorStore
from search.weights.ranks import fraction_of
from search.weights.svd import lowrank_product


class Products:
    """What interventions make of matrices, from the factors in `cache`.

    `name` of the model is noted with factors that have to be computed. Factors up to `memory_bytes`
    stay on the matrices' device, and as many in host memory. Every method takes the untouched
    matrix `original` [out, in] and its content `key` in the cache, if that is known. Not
    thread-safe.
    """

    def __init__(
        self, cache: FactorStore, name: str = "", memory_bytes: int = BUDGET_BYTES
    ) -> None:
        self._cache = cache
        self._name = name
        self._memory = FactorMemory(cache, memory_bytes)

    def kept(
        self, intervention: Intervention, original: Tensor, key: str | None = None
    ) -> range | None:
        """Which singular triples stay, 0 the largest; None where the product is not made of them.

        So with ``prune`` and with ``svd-lowrank``.
        """
        if intervention.prunes or intervention.kind in ITERATIONS:
            return None
        rule, full = intervention.rule, min(original.shape)
        if intervention.kind == "zero":
            return range(0)
        spectrum = None
        if rule.needs_spectrum:
            spectrum = self.factors(intervention, original, 0, key=key).spectrum.tolist()
        rank = rule.rank(full, spectrum, (original.shape[0], original.shape[1]))
        return range(full - rank, full) if intervention.kind == "keep-bottom" else range(rank)

    def value(self, intervention: Intervention, original: Tensor, key: str | None = None) -> Tensor:
        """The edited matrix [out, in], float32 or the original's dtype, on its device.

        Cast to the original's dtype it has the bytes of the trial. `original` is not changed, but
        may be what is returned. Raises InputError if the factors cannot be had.
        """
        kept, full = self.kept(intervention, original, key), min(original.shape)
        if kept is None:
            return _without_factors(intervention, original)
        if len(kept) == full:
            return original
        if not kept:
            return torch.zeros_like(original)
        prefix, holding = self.used(kept, full)
        factors = self.factors(intervention, original, prefix, holding, key)
        return factors.span(kept.start, kept.stop, original, original.device)

    @staticmethod
    def used(kept: range, full: int) -> tuple[int, int]:
        """(ranks to read at once, ranks that must be there) for a product of `kept` triples.

        Up to half of the ranks are multiplied; of more, the rest is taken from the matrix itself.
        """
        short = kept.start == 0 and 2 * len(kept) <= full
        return (kept.stop, kept.stop) if short else (0, full)

    def factors(
        self,
        intervention: Intervention,
        original: Tensor,
        rank: int,
        holding: int = 0,
        key: str | None = None,
    ) -> Factors:
        """`rank` ranks read of at least `holding`; all are computed where the cache has fewer."""
        key = self._cache.key(original) if key is None else key
        try:
            return self._memory.load(key, rank, holding=holding, device=original.device)
        except (KeyError, DamagedFactorsError):
            self._cache.ensure(original, key, f"{self._name}:{intervention.matrix}")
            return self._memory.load(key, rank, holding=holding, device=original.device)


def _without_factors(intervention: Intervention, original: Tensor) -> Tensor:
    """What prunes, and LASER's own low rank: computed from the matrix alone."""
    if intervention.prunes:
        prune = pruned if intervention.kind == "prune" else pruned_as_laser
        return prune(original, intervention.rule.value)
    rank = intervention.rule.rank(min(original.shape))
    if rank == min(original.shape):
        return original
    if rank == 0:
        return torch.zeros_like(original)
    return lowrank_product(original, rank, ITERATIONS[intervention.kind])


def pruned(weight: Tensor, rho: float) -> Tensor:
    """`weight` [out, in] with all but the fraction `rho` of its entries, the largest, set to zero.

    At least one entry stays unless `rho` is 0. Among equal absolute values the first in row order
    stay, so the result is the same on every device. Returns a new tensor of the same dtype.
    """
    flat = weight.reshape(-1)
    kept = fraction_of(rho, flat.numel())
    if kept == 0:
        return torch.zeros_like(weight)
    size = flat.abs().float()
    edge = torch.kthvalue(size, flat.numel() - kept + 1).values
    stays = size > edge
    ties = torch.nonzero(size == edge).reshape(-1)
    stays[ties[: kept - int(stays.sum())]] = True
    return torch.where(stays, flat, torch.zeros_like(flat)).view(weight.shape)


def pruned_as_laser(weight: Tensor, rho: float) -> Tensor:
    """`weight` [out, in] with as many entries set to zero as LASER's code sets, and which.

    All up to the absolute value at place floor((1 - rho) n) of the n entries in ascending order,
    counted from 0, are zeroed, and all that equal it: at least one entry more than that fraction.
    `rho` 1 changes nothing. Returns a new tensor of the same dtype.
    """
    if rho == 1:
        return weight.clone()
    flat = weight.reshape(-1)
    place = fraction_of(1 - rho, flat.numel())
    if place >= flat.numel():
        return torch.zeros_like(weight)
    size = flat.abs().float()
    edge = torch.kthvalue(size, place + 1).values
    return torch.where(size > edge, flat, torch.zeros_like(flat)).view(weight.shape)

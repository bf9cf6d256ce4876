"""Which bytes an intervention gives, for trials and exports alike: its kind says it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from search.cuts.composition import Intervention
from search.cuts.kinds.base import Factoring, spectrum_for
from search.weights.factor_file import DamagedFactorsError, Factors
from search.weights.memory import BUDGET_BYTES, FactorMemory, FactorStore
from tasks.errors import InputError


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
        """Which triples of the factors stay, 0 first; None where it is not made of them."""
        rule = intervention.rule
        spectrum = spectrum_for([rule], self.source(intervention, original, key))
        return intervention.made_by.kept(rule, tuple(original.shape), spectrum)

    def value(self, intervention: Intervention, original: Tensor, key: str | None = None) -> Tensor:
        """The edited matrix [out, in], float32 or the original's dtype, on its device.

        Cast to the original's dtype it has the bytes of the trial. `original` is not changed, but
        may be what is returned. Raises InputError if the factors cannot be had.
        """
        source = self.source(intervention, original, key)
        return intervention.made_by.edited(original, intervention.rule, source)

    def source(
        self, intervention: Intervention, original: Tensor, key: str | None = None
    ) -> _Source:
        """Where the intervention's kind finds the factors of `original`."""
        return _Source(self, intervention, original, key)

    def factoring(self, intervention: Intervention) -> Factoring | None:
        """How the intervention's factors are made, None for the SVD. Raises InputError."""
        try:
            return intervention.made_by.factoring_on(self._cache.inputs.get(intervention.matrix))
        except InputError as error:
            raise InputError(f"{intervention}: {error}") from None

    def factors(
        self,
        intervention: Intervention,
        original: Tensor,
        rank: int,
        holding: int = 0,
        key: str | None = None,
    ) -> Factors:
        """`rank` ranks read of at least `holding`; all are computed where the cache has fewer."""
        factoring = self.factoring(intervention)
        key = self._cache.key(original, factoring) if key is None else key
        try:
            return self._memory.load(key, rank, holding=holding, device=original.device)
        except (KeyError, DamagedFactorsError):
            origin = f"{self._name}:{intervention.matrix}"
            self._cache.ensure(original, key, origin, factoring=factoring)
            return self._memory.load(key, rank, holding=holding, device=original.device)


@dataclass(frozen=True)
class _Source:
    """The factors of one matrix, as a kind may ask for them."""

    products: Products
    intervention: Intervention
    original: Tensor
    key: str | None

    def factors(self, rank: int, holding: int = 0) -> Factors:
        """See `search.cuts.kinds.base.Source`."""
        return self.products.factors(self.intervention, self.original, rank, holding, self.key)

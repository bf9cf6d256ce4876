"""Applying compositions to a resident model, and putting every byte back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from search.cuts.composition import Composition, Intervention
from search.cuts.kinds.base import Factoring, Source
from search.cuts.refs import MatrixRef
from search.weights.matrices import Matrix
from search.weights.memory import BUDGET_BYTES, FactorStore
from search.weights.products import Products
from search.weights.thin import ThinMap, is_worth_it, takes_factors
from tasks.errors import InputError, nearest


class Editor:
    """Replaces weight matrices of one model, in place, and restores them to the byte.

    The original of each matrix is copied when it is first edited, on its parameter's device; every
    edit is computed from it, so a composition gives the same bytes whatever was applied before.
    Originals that are back in the model are kept up to a budget, so that a model whose matrices are
    all searched is not held twice. The factors are looked up by the bytes that the model holds, so
    those of another checkpoint or dtype are never used; missing or damaged ones are computed. Not
    thread-safe.
    """

    def __init__(
        self,
        model: nn.Module,
        matrices: Iterable[Matrix],
        cache: FactorStore,
        memory_bytes: int = BUDGET_BYTES,
        originals_bytes: int = BUDGET_BYTES,
        factored: bool = False,
    ) -> None:
        """Take charge of `matrices` of `model`.

        Factors up to `memory_bytes` stay on the parameters' device, and as many in host memory.
        Originals up to `originals_bytes` are kept beside those of the matrices edited now.
        `factored`: where that multiplies less, a module is given the two thin factors instead of
        their product; its weight then stays as it is.
        """
        self._name = getattr(model, "name_or_path", "")
        self.model = model
        self._parameters = dict(model.named_parameters())
        self._matrices = {matrix.ref: matrix for matrix in matrices}
        self._cache = cache
        self._products = Products(cache, self._name, memory_bytes)
        self._originals: dict[MatrixRef, Tensor] = {}
        self._originals_bytes = originals_bytes
        self._keys: dict[tuple[MatrixRef, str | None], str] = {}
        self._applied: dict[MatrixRef, Intervention] = {}
        self._factored = factored
        self._thin: dict[MatrixRef, ThinMap] = {}

    def keys(self, refs: Iterable[MatrixRef] | None = None) -> dict[MatrixRef, str]:
        """Content keys of the original matrices `refs` (default: all), for the factor cache."""
        chosen = list(self._matrices) if refs is None else list(refs)
        return {ref: self._key(ref) for ref in chosen}

    def matrix(self, ref: MatrixRef) -> Matrix:
        """Where the matrix lies in the model. Raises InputError if it cannot be edited."""
        self._check(ref)
        return self._matrices[ref]

    def parameter(self, ref: MatrixRef) -> nn.Parameter:
        """The parameter that the matrix is in. Raises InputError if it cannot be edited."""
        return self._parameters[self.matrix(ref).parameter]

    def source(self, cut: Intervention) -> Source:
        """Where the kind of `cut` finds the factors of its unedited matrix."""
        self._check(cut.matrix)
        return self._products.source(cut, self._original(cut.matrix), self._key_for(cut))

    def apply(self, composition: Composition) -> None:
        """Make the model hold exactly `composition`: what else was applied is undone.

        Mutates the parameters in place. Matrices whose intervention stays are left as they are. On
        any error the model is restored first. Raises InputError on matrices that the model lacks,
        that are shared, or whose factors cannot be had.
        """
        self.check(composition)
        wanted = {i.matrix: i for i in composition.interventions}
        try:
            for ref in [r for r in self._applied if r not in wanted]:
                self._put_back(ref)
            for ref, intervention in wanted.items():
                if self._applied.get(ref) != intervention:
                    self._edit(intervention)
            self._forget_originals()
        except BaseException:
            self.restore()
            raise

    def restore(self) -> None:
        """Put the original bytes of every edited matrix back."""
        for ref in list(self._applied):
            self._put_back(ref)
        self._forget_originals()

    def _forget_originals(self) -> None:
        """Drop the oldest originals above the budget, save those of matrices that are edited."""
        held = sum(original.nbytes for original in self._originals.values())
        for ref in [ref for ref in self._originals if ref not in self._applied]:
            if held <= self._originals_bytes:
                return
            held -= self._originals.pop(ref).nbytes

    @contextmanager
    def applied(self, composition: Composition) -> Iterator[None]:
        """`apply` on entry, `restore` on exit, also after an error."""
        self.apply(composition)
        try:
            yield
        finally:
            self.restore()

    def check(self, composition: Composition) -> None:
        """Raise InputError if a matrix of `composition` is missing, shared or not in memory."""
        for intervention in composition.interventions:
            self._check(intervention.matrix)

    def _check(self, ref: MatrixRef) -> None:
        matrix = self._matrices.get(ref)
        if matrix is None:
            raise InputError(
                f"the model has no matrix {ref}{nearest(str(ref), map(str, self._matrices))}"
            )
        if matrix.shared:
            raise InputError(
                f"{ref} cannot be edited alone: {matrix.parameter} is shared ({matrix.shared})"
            )
        if self._parameters[matrix.parameter].is_meta:
            raise InputError(
                f"{ref} is not in memory (its parameter {matrix.parameter} is on the meta device); "
                "load the model without disk offload"
            )

    def _original(self, ref: MatrixRef) -> Tensor:
        """The untouched matrix [out, in]: the copy kept, or what the model holds if unedited."""
        if ref in self._originals:
            return self._originals[ref]
        matrix = self._matrices[ref]
        return matrix.read(self._parameters[matrix.parameter])

    def _key(self, ref: MatrixRef, factoring: Factoring | None = None) -> str:
        name = None if factoring is None else factoring.name
        if (ref, name) not in self._keys:
            self._keys[ref, name] = self._cache.key(self._original(ref), factoring)
        return self._keys[ref, name]

    def _key_for(self, intervention: Intervention) -> str | None:
        """The key of the matrix, where its factors may be needed."""
        factoring = self._products.factoring(intervention)
        if factoring is None and intervention.made_by.needs(intervention.rule) == "nothing":
            return None
        return self._key(intervention.matrix, factoring)

    def _put_back(self, ref: MatrixRef) -> None:
        if ref in self._thin:
            self._thin.pop(ref).undo()
        else:
            matrix = self._matrices[ref]
            matrix.write(self._parameters[matrix.parameter], self._originals[ref])
        self._applied.pop(ref, None)

    def _edit(self, intervention: Intervention) -> None:
        ref = intervention.matrix
        matrix = self._matrices[ref]
        if ref in self._thin:
            self._put_back(ref)
        if self._factored and (thin := self._as_factors(intervention, matrix)) is not None:
            if ref in self._applied:
                self._put_back(ref)
            self._applied[ref], self._thin[ref] = intervention, thin
            return
        original = self._originals.setdefault(ref, self._original(ref))
        value = self._products.value(intervention, original, self._key_for(intervention))
        # Noted before the write, so that an interrupted write is undone too.
        self._applied[ref] = intervention
        matrix.write(self._parameters[matrix.parameter], value)

    def _as_factors(self, intervention: Intervention, matrix: Matrix) -> ThinMap | None:
        """The module with two thin factors; None where it has to hold the product."""
        module = self.model.get_submodule(matrix.module)
        if not takes_factors(module) or matrix.view.width or matrix.view.expert is not None:
            return None
        original, key = self._original(matrix.ref), self._key_for(intervention)
        kept = self._products.kept(intervention, original, key)
        if not kept or kept.start or not is_worth_it(len(kept), matrix.shape):
            return None
        factors = self._products.factors(intervention, original, kept.stop, kept.stop, key)
        return ThinMap(module, factors, kept.stop, original)

"""What every kind of cut says of itself. Everything else asks the kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from search.cuts.rules import RULES, RankRule
from tasks.errors import InputError

if TYPE_CHECKING:  # a kind is read, listed and compared without torch
    import torch
    from torch import Tensor

Shape = tuple[int, ...]
"""(out, in) of a matrix."""

Need = Literal["nothing", "spectrum", "factors"]
"""What of a matrix a cut needs beside its entries, the dearest that it needs."""


class Triples(Protocol):
    """Factors W = Uᵀ diag(spectrum) V that a source has read: U [r, out], V [r, in], float32."""

    spectrum: Tensor
    U: Tensor
    V: Tensor

    def span(
        self, start: int, stop: int, weight: Tensor | None, device: torch.device | None
    ) -> Tensor:
        """Σ σᵢ uᵢ vᵢᵀ over start <= i < stop, [out, in], float32 on `device`."""
        ...


class Gradient(Protocol):
    """The gradient G [out, in] of a loss in a matrix, which need not be formed to be used."""

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        ...

    def whole(self) -> Tensor:
        """G [out, in], float32."""
        ...

    def along(self, U: Tensor, V: Tensor) -> Tensor:
        """uᵢᵀ G vᵢ [r] for the rows of `U` [r, out] and `V` [r, in], float32 on its device."""
        ...

    def inner(self, weight: Tensor) -> Tensor:
        """⟨G, W⟩, float64, of `weight` [out, in]."""
        ...


class Inputs(Protocol):
    """What a matrix [out, in] is given, as it was measured on calibration texts."""

    @property
    def digest(self) -> str:
        """Of the second moment, for the names of factorings that are made from it."""
        ...

    def read(self) -> Tensor:
        """The second moment C = E[x xᵀ] [in, in], float64, on the host."""
        ...

    def whitening(self) -> Factoring:
        """The factoring whose leading triples are best under E‖(W − W_r) x‖²."""
        ...


class Source(Protocol):
    """What a kind may ask for beside the matrix: its factors, from a cache or a patch."""

    def factors(self, rank: int, holding: int = 0) -> Triples:
        """`rank` ranks read, of at least `holding`; computed where they are missing.

        Raises InputError if they cannot be had.
        """
        ...


def spectrum_for(rules: Sequence[RankRule], source: Source) -> list[float] | None:
    """All singular values, descending; None, and nothing is read, if none of `rules` needs them."""
    if not any(rule.needs_spectrum for rule in rules):
        return None
    values: list[float] = source.factors(0).spectrum.tolist()
    return values


@dataclass(frozen=True)
class Factoring:
    """How the factors of a kind are made, if not as the matrix's exact SVD.

    `name` is part of their key in the cache, so it must change with whatever changes them: the
    version of the method, and a digest of all that it reads beside the matrix. `decompose` takes
    the matrix [out, in], any float dtype, and gives U [out, k], S [k] descending, V [in, k] of
    k = min(out, in), float32, whose product U diag(S) Vᵀ is the matrix; leading triples are what a
    cut keeps, so the order is by importance.
    """

    name: str
    decompose: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


class Kind(ABC):
    """One way to replace a matrix by a simpler one. Stateless; `name` is its spelling.

    `about`: one line for lists. `rules`: the rank rules that its values are read by. `fixed`: the
    only value of a kind that takes none. `factoring`: how its factors are made, None for the SVD.
    `needs_factors`: whether an edit reads factors. `needs_inputs`: whether its factors are made
    from what a matrix is given, so that a study calibrates first.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    rules: ClassVar[tuple[str, ...]] = RULES
    fixed: ClassVar[RankRule | None] = None
    factoring: Factoring | None = None
    needs_factors: ClassVar[bool] = False
    needs_inputs: ClassVar[bool] = False

    def factoring_on(self, inputs: Inputs | None) -> Factoring | None:
        """How the factors of a matrix are made that is given `inputs`; None for the SVD.

        Raises InputError if it needs inputs and they were not measured.
        """
        if self.needs_inputs and inputs is None:
            raise InputError(
                f"kind {self.name!r} depends on the inputs of the matrix, which were not measured "
                "here; use it in a study, which calibrates first, or give texts with --calibration"
            )
        return self.factoring

    def check(self, rule: RankRule) -> None:
        """Raise InputError if a value means nothing to this kind."""
        if self.fixed is not None and rule != self.fixed:
            raise InputError(f"kind {self.name!r} takes no value; leave it out")
        if rule.name not in self.rules:
            names = " or a ".join(self.rules)
            raise InputError(f"kind {self.name!r} takes a {names}, not a {rule.name}")

    def needs(self, rule: RankRule) -> Need:
        """What an edit needs beside the matrix."""
        if self.needs_factors:
            return "factors"
        return "spectrum" if rule.needs_spectrum else "nothing"

    def keeps_nothing(self, rule: RankRule) -> bool:
        """Whether the zero matrix is left, of whatever matrix."""
        return rule.value == 0  # no rule with a threshold takes 0

    def rank(self, rule: RankRule, shape: Shape, spectrum: Sequence[float] | None = None) -> int:
        """How many ranks a value keeps of a matrix of `shape` (out, in).

        `spectrum`: all singular values, descending. Raises ValueError where the rule reads it and
        it is None.
        """
        return rule.rank(min(shape), spectrum, (shape[0], shape[1]))

    def kept(
        self, rule: RankRule, shape: Shape, spectrum: Sequence[float] | None = None
    ) -> range | None:
        """Which triples of the factors stay, 0 the first; None where it is not made of them.

        Raises ValueError where the rule reads the spectrum and it is None.
        """
        return None

    @abstractmethod
    def edited(self, original: Tensor, rule: RankRule, source: Source) -> Tensor:
        """The edited matrix [out, in], float32 or the original's dtype, on its device.

        Cast to the original's dtype it has the bytes of a trial. `original` is not changed, but may
        be what is returned.
        """
        ...

    def effect(
        self,
        rule: RankRule,
        max_rank: int,
        spectrum: Sequence[float] | None = None,
        shape: Shape | None = None,
    ) -> str:
        """Canonical text of what happens to a matrix of that rank; empty if nothing does.

        Two cuts of equal effect give equal bytes. Raises ValueError where the rule needs the
        spectrum and its shape, and they are None.
        """
        kept = rule.rank(max_rank, spectrum, None if shape is None else (shape[0], shape[1]))
        if kept == max_rank:
            return ""
        return "zero:0" if kept == 0 else f"{self.name}:{kept}"

    def stored(
        self, rule: RankRule, shape: Shape, spectrum: Sequence[float] | None = None
    ) -> float:
        """Parameters that the edited matrix takes: two thin factors, where those are fewer.

        A rule that reads the spectrum counts the whole matrix where that is None.
        """
        whole = shape[0] * shape[1]
        if rule.needs_spectrum and spectrum is None:
            return whole
        return min(whole, self.rank(rule, shape, spectrum) * (shape[0] + shape[1]))

    def first_order(
        self, rules: Sequence[RankRule], weight: Tensor, gradient: Gradient, source: Source
    ) -> Tensor:
        """⟨G, W' − W⟩ for each rule's edit W', float64 on the host: how the loss changes.

        `gradient` G is that of the loss in `weight` W [out, in], any float dtype. To first order.
        """
        import torch

        wide, slope = weight.double(), gradient.whole().double()
        changes = [
            ((self.edited(weight, rule, source).double() - wide) * slope).sum() for rule in rules
        ]
        return torch.stack(changes).cpu()

    def as_laser(self, model_type: str) -> str:
        """The kind that LASER's own code uses instead of this one, for parity."""
        return self.name
